package conformance

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/html"
)

// page is what the auditor reads of an HTML page.
type page struct {
	lang  string // of the html element
	text  string // visible text, blanks folded
	forms []form
}

// input is a field or a button.
type input struct{ name, value string }

type form struct {
	action  string // absolute
	method  string
	fields  []input
	buttons []input // submit buttons, by name and value
}

// field returns the value of the first field of that name in any form.
func (p *page) field(name string) (string, bool) {
	for _, f := range p.forms {
		for _, v := range f.fields {
			if v.name == name {
				return v.value, true
			}
		}
	}
	return "", false
}

// with returns the form that has a field or a button of that name and, unless
// it is "", that value.
func (p *page) with(name, value string) *form {
	for i, f := range p.forms {
		for _, v := range append(append([]input{}, f.fields...), f.buttons...) {
			if v.name == name && (value == "" || v.value == value) {
				return &p.forms[i]
			}
		}
	}
	return nil
}

// says reports whether the visible text has the sentence.
func (p *page) says(sentence string) bool {
	return strings.Contains(p.text, strings.Join(strings.Fields(sentence), " "))
}

var anomalyNumber = regexp.MustCompile(`(?:Anomalia n\.|Anomaly no\.|Anomalie Nr\.|Anomalija št\.) (\d+)`)

// number is the anomaly that the page tells the person, 0 when it tells none.
func (p *page) number() int {
	m := anomalyNumber.FindStringSubmatch(p.text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return n
}

// readPage parses HTML; what is no page has no forms.
func readPage(body string, at *url.URL) *page {
	p := &page{}
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return p
	}
	p.walk(doc, at, nil)
	p.text = strings.Join(strings.Fields(p.text), " ")
	return p
}

func (p *page) walk(n *html.Node, at *url.URL, f *form) {
	switch {
	case n.Type == html.TextNode:
		p.text += " " + n.Data
	case n.Type == html.ElementNode:
		switch n.Data {
		case "script", "style", "head":
			return
		case "html":
			p.lang = htmlAttr(n, "lang")
		case "form":
			p.form(n, at)
			return
		case "input", "button":
			if f != nil {
				f.control(n)
			}
		}
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		p.walk(c, at, f)
	}
}

func (p *page) form(n *html.Node, at *url.URL) {
	f := form{method: strings.ToUpper(htmlAttr(n, "method")), action: at.String()}
	if u, err := at.Parse(htmlAttr(n, "action")); err == nil {
		f.action = u.String()
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		p.walk(c, at, &f)
	}
	p.forms = append(p.forms, f)
}

func (f *form) control(n *html.Node) {
	c := input{name: htmlAttr(n, "name"), value: htmlAttr(n, "value")}
	if n.Data == "button" || htmlAttr(n, "type") == "submit" {
		f.buttons = append(f.buttons, c)
	} else if c.name != "" {
		f.fields = append(f.fields, c)
	}
}

func htmlAttr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}
