package ceremonycmd

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"codeberg.org/go-pdf/fpdf"
)

// renderPDF is a report on paper: the text, line by line, and the same octets every
// time. It has a built-in font only: characters outside Windows-1252 print as dots,
// and stand right in the text.
func renderPDF(text string, at time.Time) ([]byte, error) {
	p := fpdf.New("P", "mm", "A4", "")
	title, _, _ := strings.Cut(text, "\n")
	p.SetTitle(title, true)
	p.SetLang("en")
	p.SetCreationDate(at)
	p.SetModificationDate(at)
	p.SetCatalogSort(true)
	p.SetMargins(16, 16, 16)
	p.SetFooterFunc(func() {
		p.SetY(-12)
		p.SetFont("Courier", "", 7)
		p.CellFormat(0, 5, fmt.Sprintf("%s - %d", title, p.PageNo()), "", 0, "C", false, 0, "")
	})
	latin := p.UnicodeTranslatorFromDescriptor("")
	p.AddPage()
	for line := range strings.Lines(text) {
		style := ""
		if strings.HasPrefix(line, "KEY ") || strings.HasPrefix(line, "CUSTODE ") || strings.HasPrefix(line, "REHEARSAL") || strings.HasPrefix(line, "BACKUP ") {
			style = "B"
		}
		p.SetFont("Courier", style, 8)
		p.MultiCell(0, 3.6, latin(strings.TrimSuffix(line, "\n")), "", "L", false)
	}
	var b bytes.Buffer
	err := p.Output(&b)
	return b.Bytes(), err
}
