package web

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
	_ "time/tzdata" // dates are shown in Italian time on boxes without tzdata

	"custode/authcore"
	"custode/authcore/saml"
	"custode/authcore/web/words"
	"custode/internal/fault"
	"custode/internal/id"
)

//go:embed templates
var templateFiles embed.FS

// pageNames are the templates; each fills in templates/layout.html.
var pageNames = []string{"credentials", "method", "code", "consent", "handover", "temporary", "anomaly", "message", "home", "session", "logout", "carry", "plain"}

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
	Retry    string // path of the flow that a message interrupts, or ""
	EntityID string // home

	Title       string // key of its sentence
	SPName      string
	SPNameLang  string // language of SPName when it is another than Lang, else ""
	Level       int
	Steps       []stepItem
	Step        int    // number of the current one
	Until, Left string // wall clock time by which the login must end; the minutes until then in words
	Token       string
	Cancel      bool
	Notice      *notice
	Wrong       bool // the notice is about a field
	Ways        []wayItem
	Way         words.Way // of the code
	Deliver     string    // key of the delivery's text, or ""
	Resend      bool
	Change      bool // another method can be chosen

	Attributes []attributeItem
	LastLogin  string
	Resumed    bool // no password was asked: a session is open

	HasSessions            bool // home
	Person, Since, Expires string
	Services               []serviceItem
	Pending                string // path of a logout that can be continued
	Auto, Again, Over      bool   // logout
	Parameter              string // carry: name of the field
	To                     string // logout: who waits for the answer

	ACS, ACSHost, SAMLResponse, RelayState, Nonce string
	HasRelayState                                 bool

	Code                       int // anomaly
	Sentence, Advice, Official string

	Others []*page // the same page in the other languages, when it has no Path
	Other  bool    // it is one of those

	book   words.Book
	site   *Config
	assets map[string]string
}

type stepItem struct {
	Number int
	Label  string
	State  string // "done", "current", "ahead"
}

// wayItem is a second factor on the choice of method.
type wayItem struct {
	words.Way
	Value            string
	Checked, Blocked bool
}

type notice struct {
	Kind       string // "error", "success", "info"
	Text       string
	Field      string // id of the field that it is about, or ""
	FieldLabel string
}

type attributeItem struct{ Label, Value string }

// T returns a sentence; args fill in its verbs. An unknown key fails the page,
// which tests see.
func (p *page) T(key string, args ...any) (string, error) { return p.book.Text(key, args...) }

// Book is the page's language.
func (p *page) Book() words.Book { return p.book }

// Brand is the name of the identity provider.
func (p *page) Brand() string { return p.site.Name }

// ID returns an id that no other version within the same document has.
func (p *page) ID(name string) string {
	if p.Other {
		return name + "-" + p.Lang
	}
	return name
}

// Heading is the document's title: what happened, the page, its place in the
// login, the service, the identity provider.
func (p *page) Heading() (string, error) {
	title, err := p.T(p.Title)
	if err != nil {
		return "", err
	}
	if p.Notice != nil && p.Notice.Kind == "error" {
		title = p.text("notice.heading.er") + ": " + title
	}
	if p.Step > 0 {
		title += " (" + p.text("title.step", p.Step, len(p.Steps)) + ")"
	}
	if p.SPName != "" {
		title += " – " + words.Isolated(p.SPName)
	}
	return title + " – " + p.Brand(), nil
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

// count is text for sentences with plural forms.
func (p *page) count(key string, n int) string {
	t, err := p.book.Count(key, n)
	if err != nil {
		return key
	}
	return t
}

func (s *Server) newPage(r request, name string) *page {
	return &page{Name: name, Lang: r.lang, Title: name + ".title", book: words.In(r.lang), site: &s.cfg, assets: s.pages.assets}
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
	return answer{status: status, contentType: "text/html; charset=utf-8", body: b.Bytes(), language: p.Lang}
}

// renderAll renders a page that cannot be fetched again: it holds its versions
// in the other languages, which the switch brings up. fill completes a version.
func (s *Server) renderAll(r request, name string, status int, fill func(*page)) answer {
	p := s.newPage(r, name)
	fill(p)
	for _, l := range words.Languages() {
		if l.Tag == p.Lang {
			continue
		}
		o := s.newPage(request{lang: l.Tag}, name)
		fill(o)
		o.Other = true
		p.Others = append(p.Others, o)
	}
	return s.render(p, status)
}

// message is a page with a title, a text and no form; key names them. Within a
// flow it leads back to the flow, where the login can go on or be cancelled.
func (s *Server) message(r request, status int, key string) answer {
	retry := ""
	if flow, err := id.ParseFlowID(strings.TrimPrefix(r.path, "/flow/")); err == nil && retriable[key] {
		if _, ours := secretOf(r.cookies, flow); ours {
			retry = "/flow/" + flow.String()
		}
	}
	return s.renderAll(r, "message", status, func(p *page) {
		p.Title = "message." + key + ".title"
		p.Sentence = p.text("message." + key + ".text")
		p.Retry = retry
	})
}

// retriable are the messages after which a flow still stands where it stood.
var retriable = map[string]bool{"bad": true, "forged": true, "method": true, "wait": true, "busy": true}

// setAnomaly shows the prescribed Italian sentence in every language, and below
// it what it means in the page's.
func (p *page) setAnomaly(row saml.AnomalyRow) {
	p.Code, p.Official = int(row.Code), row.PageIT
	if row.AdviceIT != "" {
		p.Advice = p.text(row.AdviceIT)
	}
	if p.Lang != words.Italian && row.PageIT != "" {
		p.Sentence = p.text(row.PageIT)
	}
}

func (p *page) setService(who spNames, level saml.Level) {
	p.SPName, p.SPNameLang = who.name(p.Lang)
	if p.SPNameLang == p.Lang {
		p.SPNameLang = ""
	}
	p.Level = int(level)
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
	p.setService(spNames{v.SPName, v.SP.String()}, v.Level)
	p.Cancel = true
	if !v.Deadline.IsZero() {
		p.Until = v.Deadline.In(s.pages.rome).Format("15:04")
		p.Left = p.text("until.last")
		if m := int(v.Deadline.Sub(s.cfg.Now()) / time.Minute); m > 0 {
			p.Left = p.count("until.left", m)
		}
	}
	p.setSteps(v)
	p.setNotice(v)
	switch v.Step {
	case authcore.StepMethod:
		p.Ways = wayItems(v.Ways)
	case authcore.StepCode:
		p.Way, p.Resend, p.Change = wayWords(v.Way), v.CanResend, v.CanChange
		if v.Way.Method == authcore.MethodSMS {
			p.Deliver = cmp.Or(deliveryKeys[v.Delivery], "delivery.unknown")
		}
	case authcore.StepConsent:
		for _, a := range v.Attributes {
			p.Attributes = append(p.Attributes, attributeItem{p.book.Label(a.Name), p.book.Value(a.Name, a.Value)})
		}
		p.Resumed, p.Way = v.Resumed, wayWords(v.Way)
		if !v.LastLogin.IsZero() {
			t := v.LastLogin.In(s.pages.rome)
			p.LastLogin = p.text("consent.last", p.book.Date(t), t.Format("15:04"))
		}
	}
	return s.render(p, http.StatusOK)
}

// methodValues name the methods in forms and in the keys of sentences.
var methodValues = map[authcore.Method]string{authcore.MethodSMS: "sms", authcore.MethodToken: "token", authcore.MethodApp: "app", authcore.MethodPush: "push"}

func wayWords(w authcore.Way) words.Way {
	return words.Way{Kind: methodValues[w.Method], Name: strings.ReplaceAll(w.Name, " ", "\u00a0"), Digits: w.Digits, Number: w.Number}
}

// wayItems are the ways as they are offered: chosen is the one used last, else the first.
func wayItems(ways []authcore.Way) []wayItem {
	var out []wayItem
	at := -1
	for i, w := range ways {
		out = append(out, wayItem{Way: wayWords(w), Value: strings.TrimSuffix(methodValues[w.Method]+"-"+w.Key, "-"), Blocked: w.Blocked})
		if !w.Blocked && (at < 0 || w.Last) {
			at = i
		}
	}
	if at >= 0 {
		out[at].Checked = true
	}
	return out
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
			p.Step = i + 1
		case st < v.Step:
			state = "done"
		}
		p.Steps = append(p.Steps, stepItem{Number: i + 1, Label: p.text(fmt.Sprintf("step.%d", st)), State: state})
	}
}

func (p *page) setNotice(v *authcore.View) {
	say := func(kind, text string) { p.Notice = &notice{Kind: kind, Text: text} }
	wrong := func(text, field, label string) {
		p.Notice = &notice{Kind: "error", Text: text, Field: field, FieldLabel: label}
		p.Wrong = true
	}
	left := func() string {
		if v.AttemptsLeft <= 0 {
			return ""
		}
		return " " + p.count("notice.left", v.AttemptsLeft)
	}
	wrongCode := func(text string) { wrong(text, "code", p.text("code.label", v.Way.Digits)) }
	switch v.Notice {
	case authcore.NoticeNone:
	case authcore.NoticeWrongCredentials:
		wrong(p.text("notice.credentials")+left(), "username", p.text("credentials.username"))
	case authcore.NoticeWait:
		say("error", p.waitText(v.RetryAfter))
	case authcore.NoticeWrongCode:
		wrongCode(p.text("notice.code") + left())
	case authcore.NoticeExpiredCode:
		wrongCode(p.text("notice.expired"))
	case authcore.NoticeUsedCode:
		wrongCode(p.text("notice.used"))
	case authcore.NoticeMalformedCode:
		wrongCode(p.text("notice.malformed", v.Way.Digits))
	case authcore.NoticeRepeatedCode:
		wrongCode(p.text("notice.repeated") + left())
	case authcore.NoticeBlockedMethod:
		say("error", p.text("notice.blocked"))
	case authcore.NoticeCodeSent:
		say("success", p.text("notice.sent"))
	case authcore.NoticeTooManyCodes:
		say("error", p.text("notice.toomany"))
	default: // NoticeBusy and any to come
		say("info", p.text("notice.busy"))
	}
}

func (p *page) waitText(d time.Duration) string {
	secs := max(1, int((d+time.Second-1)/time.Second))
	if secs < 120 {
		return p.count("notice.wait.seconds", secs)
	}
	return p.count("notice.wait.minutes", (secs+59)/60)
}

// deliveryKeys are the keys of the texts; a state without one is unknown.
var deliveryKeys = map[authcore.Delivery]string{
	authcore.DeliveryQueued:    "delivery.queued",
	authcore.DeliverySent:      "delivery.sent",
	authcore.DeliveryDelivered: "delivery.delivered",
	authcore.DeliveryFailed:    "delivery.failed",
	authcore.DeliveryUncertain: "delivery.uncertain",
}
