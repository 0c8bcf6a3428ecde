package conformance

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"custode/internal/conformance/catalogue"
	"custode/internal/conformance/request"
)

const auditorEntity = "https://verifica.example.it"

// keys are made once: the fake's, the auditor's, and one of nobody.
var keys = sync.OnceValue(func() [3]request.KeyPair {
	var out [3]request.KeyPair
	for i := range out {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			panic(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		out[i] = request.KeyPair{Key: key, Certificate: cert}
	}
	return out
})

// fake is an instance that answers every request in one way, right unless it is
// told to lie.
type fake struct {
	t    *testing.T
	url  string
	code int // of the table, 0: the login begins
	lie  lies
	sent int
}

// lies change what an honest instance would send. Nil tells the truth.
type lies struct {
	response, assertion func(string) string      // before it is signed
	signed              func(string) string      // after
	sign                func(s *request.Signing) // how the Response is signed
	unsigned            bool                     // Response
	bare                bool                     // Assertion
	page                func(string) string      // the page
	status              int                      // HTTP
	form                func(*fakeForm)          // the hand-over
	delay               time.Duration            // before answering
}

type fakeForm struct {
	action, method, relay string
	hasRelay              bool
}

func newFake(t *testing.T, code int, lie lies) *fake {
	t.Helper()
	f := &fake{t: t, code: code, lie: lie}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

func (f *fake) sp() *request.SP {
	return &request.SP{EntityID: auditorEntity, Main: keys()[1]}
}

func (f *fake) auditor(change ...func(*Config)) *Auditor {
	f.t.Helper()
	cfg := Config{URL: f.url, SP: *f.sp(), Now: time.Now, Subject: &Subject{"ada", "secret"}, Bound: 500 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := a.Open(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fake) signing() *request.Signing {
	return &request.Signing{Key: keys()[0].Key, Cert: keys()[0].Certificate.Raw, Random: rand.Reader,
		Algorithm: request.RSASHA256, Digest: request.DigestSHA256, C14N: request.AlgExcC14N}
}

func (f *fake) metadata() string {
	doc := `<md:EntityDescriptor xmlns:md="` + request.NSMetadata + `" xmlns:ds="` + request.NSSignature + `" ID="_m" entityID="` + f.url + `">` + request.SignatureMark +
		`<md:IDPSSODescriptor protocolSupportEnumeration="` + request.NSProtocol + `"><md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` +
		base64.StdEncoding.EncodeToString(keys()[0].Certificate.Raw) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`
	for _, b := range []string{"HTTP-Redirect", "HTTP-POST"} {
		doc += `<md:SingleSignOnService Binding="` + request.BindingPrefix + b + `" Location="` + f.url + `/sso"/>`
	}
	for _, b := range []string{"HTTP-Redirect", "HTTP-POST"} {
		doc += `<md:SingleLogoutService Binding="` + request.BindingPrefix + b + `" Location="` + f.url + `/slo"/>`
	}
	doc, err := f.signing().Enveloped(doc + `</md:IDPSSODescriptor></md:EntityDescriptor>`)
	if err != nil {
		f.t.Error(err)
	}
	return doc
}

// ServeHTTP answers metadata, requests and the pages of the login.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/metadata" {
		_, _ = io.WriteString(w, f.metadata())
		return
	}
	<-time.After(f.lie.delay)
	_ = r.ParseForm()
	id, relay, has := "", "", false
	if r.URL.Path == "/sso" || r.URL.Path == "/slo" {
		id, relay, has = f.read(r)
	} else {
		id, relay, has = r.Form.Get("id"), r.Form.Get("relay"), r.Form.Get("has") != ""
	}
	row := catalogue.Table[f.code]
	lang := language(r.Header.Get("Accept-Language"))
	walks := f.code == 1
	next := map[string]string{"": "password", "password": "consent", "consent": ""}[r.Form.Get("action")]
	switch {
	case r.URL.Path == "/slo" && f.code == catalogue.Refused:
		f.write(w, http.StatusForbidden, lang, "<p>no</p>")
	case r.URL.Path == "/slo":
		text := strings.NewReplacer("samlp:Response", "samlp:LogoutResponse", f.sp().ACS(0), f.sp().SLO(), `Format="`+request.FormatEntity+`"`, `Format="`+request.FormatEntity+`" NameQualifier="`+f.url+`"`)
		if f.lie.response == nil {
			f.lie.response = func(s string) string { return s }
		}
		honest := f.lie.response
		f.lie.response = func(s string) string { return honest(text.Replace(s)) }
		row = catalogue.Row{Code: 8, Response: true, Status: "Requester", Sub: "PartialLogout"}
		form := fakeForm{f.sp().SLO(), "post", relay, has}
		if f.lie.form != nil {
			f.lie.form(&form)
		}
		f.write(w, http.StatusOK, lang, f.handOver(row, form, id))
	case f.code == 0 || walks && next != "":
		if next == "" {
			next = "password"
		}
		f.write(w, http.StatusOK, lang, f.login(next, id, relay, has))
	case !row.Response:
		english := ""
		if lang == "en" {
			english = "<p>" + row.PageEN + "</p><p>Anomaly no. %d</p>"
		} else {
			english = "<p>Anomalia n. %d</p>"
		}
		f.write(w, row.HTTP, lang, "<p>"+row.PageIT+"</p>"+fmt.Sprintf(english, row.Code))
	default:
		form := fakeForm{f.sp().ACS(0), "post", relay, has}
		if f.lie.form != nil {
			f.lie.form(&form)
		}
		f.write(w, row.HTTP, lang, f.handOver(row, form, id))
	}
}

func (f *fake) handOver(row catalogue.Row, form fakeForm, id string) string {
	text := `<p>` + row.PageIT + ` ` + row.PageEN + `</p><form method="` + form.method + `" action="` + form.action + `"><input type="hidden" name="SAMLResponse" value="` +
		base64.StdEncoding.EncodeToString([]byte(f.response(row, id))) + `">`
	if form.hasRelay {
		text += `<input type="hidden" name="RelayState" value="` + html.EscapeString(form.relay) + `">`
	}
	return text + `<button>Continua</button></form>`
}

func (f *fake) login(action, id, relay string, has bool) string {
	hidden := func(name, value string) string {
		return `<input type="hidden" name="` + name + `" value="` + html.EscapeString(value) + `">`
	}
	text := `<p>` + request.DisplayName + ` SPID 2</p><form method="post" action="/flow">` + hidden("id", id) + hidden("relay", relay)
	if has {
		text += hidden("has", "1")
	}
	if action == "password" {
		text += `<input name="username"><input name="password" type="password">`
	}
	return text + `<button name="action" value="` + action + `">Entra</button></form><form method="post" action="/flow"><button name="action" value="cancel">Annulla</button></form>`
}

func (f *fake) write(w http.ResponseWriter, status int, lang, body string) {
	text := `<!DOCTYPE html><html lang="` + lang + `"><head><title>x</title></head><body>` + body + `</body></html>`
	if f.lie.page != nil {
		text = f.lie.page(text)
	}
	if f.lie.status != 0 {
		status = f.lie.status
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// read takes identifier and RelayState out of the message.
func (f *fake) read(r *http.Request) (id, relay string, has bool) {
	raw, err := base64.StdEncoding.DecodeString(r.Form.Get("SAMLRequest"))
	if err != nil {
		f.t.Error(err)
	}
	if r.Method == http.MethodGet {
		if raw, err = io.ReadAll(flate.NewReader(bytes.NewReader(raw))); err != nil {
			f.t.Error(err)
		}
	}
	root, err := request.Parse(string(raw))
	if err != nil {
		f.t.Error(err)
		return "", "", false
	}
	_, has = r.Form["RelayState"]
	return root.Get("ID"), r.Form.Get("RelayState"), has
}

func instant(d time.Duration) string { return time.Now().Add(d).UTC().Format(request.InstantLayout) }

func (f *fake) response(row catalogue.Row, id string) string {
	f.sent++
	sub := ""
	if row.Sub != "" {
		sub = `<samlp:StatusCode Value="` + catalogue.StatusPrefix + row.Sub + `"/>`
	}
	status := `<samlp:Status><samlp:StatusCode Value="` + catalogue.StatusPrefix + row.Status + `">` + sub + `</samlp:StatusCode>`
	if m := row.Message(); m != "" {
		status += `<samlp:StatusMessage>` + m + `</samlp:StatusMessage>`
	}
	doc := `<samlp:Response xmlns:samlp="` + request.NSProtocol + `" xmlns:saml="` + request.NSAssertion + `" ID="_r` + fmt.Sprint(f.sent) + `" Version="2.0" IssueInstant="` + instant(0) +
		`" Destination="` + f.sp().ACS(0) + `" InResponseTo="` + id + `"><saml:Issuer Format="` + request.FormatEntity + `">` + f.url + `</saml:Issuer>` + request.SignatureMark + status + `</samlp:Status>@</samlp:Response>`
	if f.lie.response != nil {
		doc = f.lie.response(doc)
	}
	assertion := ""
	if f.code == 1 {
		assertion = f.assertion(id)
	}
	doc = strings.Replace(doc, "@", assertion, 1)
	if f.lie.unsigned {
		doc = strings.Replace(doc, request.SignatureMark, "", 1)
	} else {
		s := f.signing()
		if f.lie.sign != nil {
			f.lie.sign(s)
		}
		var err error
		if doc, err = s.Enveloped(doc); err != nil {
			f.t.Error(err)
		}
	}
	if f.lie.signed != nil {
		doc = f.lie.signed(doc)
	}
	return doc
}

func (f *fake) assertion(id string) string {
	doc := `<saml:Assertion xmlns:saml="` + request.NSAssertion + `" xmlns:xs="` + nsXSD + `" xmlns:xsi="` + nsXSI + `" ID="_a` + fmt.Sprint(f.sent) + `" Version="2.0" IssueInstant="` + instant(0) + `">` +
		`<saml:Issuer Format="` + request.FormatEntity + `">` + f.url + `</saml:Issuer>` + request.SignatureMark +
		`<saml:Subject><saml:NameID Format="` + request.FormatTransient + `" NameQualifier="` + f.url + `">_0123456789abcdef` + fmt.Sprint(f.sent) + `</saml:NameID>` +
		`<saml:SubjectConfirmation Method="` + cmBearer + `"><saml:SubjectConfirmationData Recipient="` + f.sp().ACS(0) + `" InResponseTo="` + id + `" NotOnOrAfter="` + instant(5*time.Minute) + `"/></saml:SubjectConfirmation></saml:Subject>` +
		`<saml:Conditions NotBefore="` + instant(-time.Minute) + `" NotOnOrAfter="` + instant(5*time.Minute) + `"><saml:AudienceRestriction><saml:Audience>` + auditorEntity + `</saml:Audience></saml:AudienceRestriction></saml:Conditions>` +
		`<saml:AuthnStatement AuthnInstant="` + instant(0) + `" SessionIndex="_s"><saml:AuthnContext><saml:AuthnContextClassRef>` + request.LevelPrefix + `1</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>` +
		`<saml:AttributeStatement><saml:Attribute Name="fiscalNumber" NameFormat="` + request.BasicName + `"><saml:AttributeValue xsi:type="xs:string">TINIT-X</saml:AttributeValue></saml:Attribute></saml:AttributeStatement></saml:Assertion>`
	if f.lie.assertion != nil {
		doc = f.lie.assertion(doc)
	}
	if f.lie.bare {
		return strings.Replace(doc, request.SignatureMark, "", 1)
	}
	doc, err := f.signing().Enveloped(doc)
	if err != nil {
		f.t.Error(err)
	}
	return doc
}
