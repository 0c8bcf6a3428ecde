package attest

import (
	"bytes"
	"fmt"
	"strings"

	"codeberg.org/go-pdf/fpdf"
)

// renderPDF is the report on paper. It has the built-in fonts only: characters
// outside Windows-1252 print as dots, and stand right in report.html.
func renderPDF(s Statement, q Question, accesses []Access) ([]byte, error) {
	p := fpdf.New("P", "mm", "A4", "")
	p.SetTitle("Attestazione degli accessi - Attestation of accesses", true)
	p.SetLang("it-IT")
	p.SetCreationDate(s.Made)
	p.SetModificationDate(s.Made)
	p.SetCatalogSort(true)
	p.SetMargins(18, 18, 18)
	latin := p.UnicodeTranslatorFromDescriptor("")
	p.SetFooterFunc(func() {
		p.SetY(-14)
		p.SetFont("Helvetica", "", 7)
		p.CellFormat(0, 5, latin(fmt.Sprintf("%s - %s - %d", s.Provider, s.SPIDCode, p.PageNo())), "", 0, "C", false, 0, "")
	})
	p.AddPage()
	line := func(style string, size float64, text string) {
		p.SetFont("Helvetica", style, size)
		p.MultiCell(0, size/2, latin(text), "", "L", false)
	}
	const stamp, local = "2006-01-02 15:04:05 UTC", "02/01/2006 15:04:05 -0700"
	line("B", 15, "Attestazione degli accessi / Attestation of accesses")
	p.Ln(3)
	line("", 10, "Gestore / Identity provider: "+s.Provider)
	line("", 10, "Titolare / Subject: "+q.Name+" ("+s.SPIDCode+")")
	line("", 10, "Intervallo / Interval: "+s.From.In(rome).Format(local)+" - "+s.To.In(rome).Format(local))
	line("", 10, "Prodotta il / Made: "+s.Made.In(rome).Format(local)+" ("+s.Made.UTC().Format(stamp)+")")
	line("", 10, fmt.Sprintf("Registro / Log: %s, %d registrazioni / records", s.Log, s.Size))
	p.Ln(3)
	if len(accesses) == 0 {
		line("B", 11, "Nell'intervallo non risulta alcuna autenticazione. / The interval holds no authentication.")
	} else {
		line("B", 11, fmt.Sprintf("Autenticazioni nell'intervallo / Authentications in the interval: %d", len(accesses)))
	}
	for i, a := range accesses {
		p.Ln(2)
		outcome := "riuscita / success"
		if a.Code != 1 {
			outcome = fmt.Sprintf("ErrorCode nr%02d", a.Code)
		}
		line("B", 9, fmt.Sprintf("%d. %s (%s)", s.Records[i], a.At.In(rome).Format(local), a.At.UTC().Format(stamp)))
		line("", 9, a.SPName+" - "+a.Request.Issuer)
		if a.Level > 0 {
			outcome += fmt.Sprintf(", SPID %d", a.Level)
		}
		line("", 9, outcome+", "+strings.Join(a.Credentials, ", "))
		line("", 8, "Attributi richiesti / Requested attributes: "+strings.Join(a.Requested, ", "))
		line("", 7, "request "+a.Request.ID+"  response "+a.Response.ID+"  assertion "+a.Assertion.ID)
	}
	p.Ln(4)
	if len(s.Destroyed) > 0 {
		line("", 9, fmt.Sprintf("Oltre il periodo di conservazione, distrutti / beyond the retention period, destroyed: %d segmenti / segments.", len(s.Destroyed)))
	}
	line("", 9, "Completezza: il gestore dichiara, con il sigillo di attestation.p7m, che nessuna autenticazione dell'intervallo è stata omessa. "+
		"By that seal the provider states that no authentication of the interval was left out.")
	var b bytes.Buffer
	if err := p.Output(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
