package web

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // dates are shown in Italian time on boxes without tzdata

	"custode/authcore"
	"custode/authcore/saml"
	"custode/internal/fault"
)

//go:embed templates
var templateFiles embed.FS

// pageNames are the templates; each fills in templates/layout.html.
var pageNames = []string{"credentials", "method", "code", "consent", "handover", "temporary", "anomaly", "message", "home"}

// pages renders. It is read-only after newPages.
type pages struct {
	byName map[string]*template.Template
	assets map[string]string // file name -> path in URLs
	rome   *time.Location
}

func newPages(assets map[string]asset) (*pages, error) {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		return nil, fault.New(fault.Internal, "load time zone Europe/Rome", err)
	}
	p := &pages{byName: map[string]*template.Template{}, assets: map[string]string{}, rome: rome}
	for key, a := range assets {
		p.assets[a.name] = "/static/" + key
	}
	for _, name := range pageNames {
		t, err := template.New("layout.html").Option("missingkey=error").
			ParseFS(templateFiles, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, fault.New(fault.Internal, "parse template "+name, err)
		}
		p.byName[name] = t
	}
	return p, nil
}

// page is what templates see. Each template uses its part.
type page struct {
	Name     string // template
	Lang     string
	Path     string // of this page, when it can be shown again with GET
	Mark     string // notice mark in Path's query
	EntityID string // home

	Title   string // key of the catalogue
	SPName  string
	Level   int
	Steps   []stepItem
	Until   string // wall clock time by which the login must end
	Token   string
	Cancel  bool
	Notice  *notice
	Wrong   bool   // the notice is about a field
	Method  bool   // SMS is offered
	Phone   string // masked
	Deliver string // key of the delivery's text
	Resend  bool

	Attributes []attributeItem
	LastLogin  string

	ACS, ACSHost, SAMLResponse, RelayState, Nonce string
	HasRelayState                                 bool

	Code                       int // anomaly
	Sentence, Advice, Official string

	texts  map[string]string
	assets map[string]string
}

type stepItem struct {
	Number int
	Label  string
	State  string // "done", "current", "ahead"
}

type notice struct {
	Kind string // "error", "success", "info"
	Text string
}

type attributeItem struct{ Label, Value string }

// T returns a text of the catalogue; args fill in its verbs. An unknown key
// fails the page, which tests see.
func (p *page) T(key string, args ...any) (string, error) {
	t, ok := p.texts[key]
	if !ok {
		return "", fmt.Errorf("no text %q in %s", key, p.Lang)
	}
	if len(args) == 0 {
		return t, nil
	}
	return fmt.Sprintf(t, args...), nil
}

// Asset returns the path of an embedded file.
func (p *page) Asset(name string) (string, error) {
	a, ok := p.assets[name]
	if !ok {
		return "", fmt.Errorf("no embedded file %q", name)
	}
	return a, nil
}

// text is T for code; its keys are constants that tests cover.
func (p *page) text(key string, args ...any) string {
	t, err := p.T(key, args...)
	if err != nil {
		return key
	}
	return t
}

func (s *Server) newPage(r request, name string) *page {
	return &page{Name: name, Lang: r.lang, Title: name + ".title", texts: catalogue(r.lang), assets: s.pages.assets}
}

// render executes the template of p into memory, so that a failing page is a
// whole answer too and not half a page.
func (s *Server) render(p *page, status int) answer {
	var b bytes.Buffer
	b.Grow(8 << 10)
	if err := s.pages.byName[p.Name].Execute(&b, p); err != nil {
		s.cfg.Log.Error("render page", "page", p.Name, "error", err)
		row, _ := saml.Anomaly(saml.SystemError)
		return answer{status: row.HTTP, contentType: "text/plain; charset=utf-8", body: []byte(row.PageIT + "\n")}
	}
	return answer{status: status, contentType: "text/html; charset=utf-8", body: b.Bytes()}
}

// message is a page with a title, a text and no form; key names them.
func (s *Server) message(r request, status int, key string) answer {
	p := s.newPage(r, "message")
	p.Title = "message." + key + ".title"
	p.Sentence = p.text("message." + key + ".text")
	return s.render(p, status)
}

// setAnomaly shows the prescribed Italian sentence in every language, and below
// it what it means in the page's.
func (p *page) setAnomaly(row saml.AnomalyRow) {
	p.Code, p.Official, p.Advice = int(row.Code), row.PageIT, row.AdviceIT
	if p.Lang == english {
		p.Sentence, p.Advice = row.PageEN, row.AdviceEN
	}
}

// stepPage renders the page of the step that v is in. mark is where its notice
// came from, for the links that show the page again.
func (s *Server) stepPage(r request, k secret, v *authcore.View, mark string) answer {
	names := map[authcore.Step]string{
		authcore.StepCredentials: "credentials", authcore.StepMethod: "method",
		authcore.StepCode: "code", authcore.StepConsent: "consent",
	}
	name, ok := names[v.Step]
	if !ok {
		return s.message(r, http.StatusGone, "finished")
	}
	p := s.newPage(r, name)
	p.Path, p.Mark = "/flow/"+v.Flow.String(), mark
	p.Token = k.formToken(v.Flow)
	p.SPName = displayName(v.SPName, r.lang, v.SP.String())
	p.Level = int(v.Level)
	p.Cancel = true
	if !v.Deadline.IsZero() {
		p.Until = v.Deadline.In(s.pages.rome).Format("15:04")
	}
	p.setSteps(v)
	p.setNotice(v)
	switch v.Step {
	case authcore.StepMethod:
		for _, m := range v.Methods {
			p.Method = p.Method || m == authcore.MethodSMS
		}
		p.Phone = unbroken(v.Phone)
	case authcore.StepCode:
		p.Phone, p.Resend = unbroken(v.Phone), v.CanResend
		p.Deliver = cmp.Or(deliveryKeys[v.Delivery], "delivery.unknown")
	case authcore.StepConsent:
		p.setAttributes(v.Attributes)
		if !v.LastLogin.IsZero() {
			t := v.LastLogin.In(s.pages.rome)
			p.LastLogin = p.text("consent.last", p.date(t), t.Format("15:04"))
		}
	}
	return s.render(p, http.StatusOK)
}

// unbroken keeps a masked number on one line.
func unbroken(s string) string { return strings.ReplaceAll(s, " ", "\u00a0") }

// displayName is the SP's name in the page's language, else in Italian, else in
// the first language there is, else what the caller has in its place.
func displayName(names map[string]string, lang, otherwise string) string {
	for _, l := range append([]string{lang, italian, english}, slices.Sorted(maps.Keys(names))...) {
		if n := names[l]; n != "" {
			return n
		}
	}
	return otherwise
}

func (p *page) setSteps(v *authcore.View) {
	steps := []authcore.Step{authcore.StepCredentials, authcore.StepMethod, authcore.StepCode, authcore.StepConsent}
	if v.Level == saml.L1 {
		steps = []authcore.Step{authcore.StepCredentials, authcore.StepConsent}
	}
	for i, st := range steps {
		state := "ahead"
		switch {
		case st == v.Step:
			state = "current"
		case st < v.Step:
			state = "done"
		}
		p.Steps = append(p.Steps, stepItem{Number: i + 1, Label: p.text(fmt.Sprintf("step.%d", st)), State: state})
	}
}

func (p *page) setNotice(v *authcore.View) {
	say := func(kind, text string) { p.Notice = &notice{Kind: kind, Text: text} }
	wrong := func(text string) { say("error", text); p.Wrong = true }
	switch v.Notice {
	case authcore.NoticeNone:
	case authcore.NoticeWrongCredentials:
		wrong(p.text("notice.credentials"))
	case authcore.NoticeWait:
		say("error", p.waitText(v.RetryAfter))
	case authcore.NoticeWrongCode:
		left := p.text("notice.code.one")
		if v.AttemptsLeft != 1 {
			left = p.text("notice.code.many", v.AttemptsLeft)
		}
		wrong(p.text("notice.code") + " " + left)
	case authcore.NoticeExpiredCode:
		wrong(p.text("notice.expired"))
	case authcore.NoticeUsedCode:
		wrong(p.text("notice.used"))
	case authcore.NoticeMalformedCode:
		wrong(p.text("notice.malformed"))
	case authcore.NoticeCodeSent:
		say("success", p.text("notice.sent"))
	case authcore.NoticeTooManyCodes:
		say("error", p.text("notice.toomany"))
	default: // NoticeBusy and any to come
		say("info", p.text("notice.busy"))
	}
}

func (p *page) waitText(d time.Duration) string {
	switch secs := int((d + time.Second - 1) / time.Second); {
	case secs <= 1:
		return p.text("notice.wait.one")
	case secs < 120:
		return p.text("notice.wait.seconds", secs)
	default:
		return p.text("notice.wait.minutes", (secs+59)/60)
	}
}

// deliveryKeys are the keys of the texts; a state without one is unknown.
var deliveryKeys = map[authcore.Delivery]string{
	authcore.DeliveryQueued:    "delivery.queued",
	authcore.DeliverySent:      "delivery.sent",
	authcore.DeliveryDelivered: "delivery.delivered",
	authcore.DeliveryFailed:    "delivery.failed",
	authcore.DeliveryUncertain: "delivery.uncertain",
}

func (p *page) setAttributes(list []saml.Attribute) {
	for _, a := range list {
		label, ok := p.texts["attribute."+a.Name]
		if !ok {
			label = a.Name
		}
		p.Attributes = append(p.Attributes, attributeItem{Label: label, Value: p.attributeValue(a)})
	}
}

// attributeValue shows a value as a person writes it: dates in words, fiscal
// codes without their SAML prefix; everything else as it is sent.
func (p *page) attributeValue(a saml.Attribute) string {
	switch a.Name {
	case "dateOfBirth", "expirationDate":
		if t, err := time.Parse(time.DateOnly, a.Value); err == nil {
			return p.date(t)
		}
	case "fiscalNumber", "companyFiscalNumber":
		return strings.TrimPrefix(a.Value, "TINIT-")
	case "ivaCode":
		return strings.TrimPrefix(a.Value, "VATIT-")
	}
	return a.Value
}

func (p *page) date(t time.Time) string {
	return fmt.Sprintf("%d %s %d", t.Day(), p.text(fmt.Sprintf("month.%d", t.Month())), t.Year())
}
