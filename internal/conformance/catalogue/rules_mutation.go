package catalogue

import (
	"regexp"
	"slices"
	"strings"

	"custode/internal/conformance/request"
)

// The catalogue's mutations change one attribute or element of the request that
// has every optional part. What has to come of it is written by hand in the two
// tables below, from the rules: the row of the table that owns the attribute or
// element when it has one; row 8 for what only the schema forbids (an attribute
// or element that is not of SAML), because the order of the checks has it before
// the rows 12 to 18; row 4 for what is not XML. Text is trimmed where schemas
// collapse it (booleans, numbers) and in Issuer and class references, never in a
// Format or an address.

// skip marks a mutation that means nothing there.
const skip = 99

// attributeMutations: what each mutation of an attribute has to give.
var attributeMutations = []struct {
	element, name                                     string
	drop, blank, nameCase, valueCase, space, pad, cut int
}{
	{"samlp:AuthnRequest", "ID", 11, 11, 11, skip, 11, 11, 11},
	{"samlp:AuthnRequest", "Version", 9, 9, 9, skip, 9, 9, 9},
	{"samlp:AuthnRequest", "IssueInstant", 13, 13, 8, 13, 8, 13, 13},
	{"samlp:AuthnRequest", "Destination", 14, 14, 8, 14, 8, 14, 14},
	{"samlp:AuthnRequest", "ForceAuthn", 8, 8, 8, 8, 8, 0, 8},
	{"samlp:AuthnRequest", "IsPassive", 0, 8, 8, 8, 8, 0, 8},
	{"samlp:AuthnRequest", "AssertionConsumerServiceIndex", 16, 16, 8, skip, 8, 0, 16},
	{"samlp:AuthnRequest", "AttributeConsumingServiceIndex", 0, 18, 8, skip, 8, 0, 18},
	{"saml:Issuer", "Format", 10, 10, 10, 10, 10, 10, 10},
	{"saml:Issuer", "NameQualifier", 10, 10, 10, 0, 10, 10, 10},
	{"saml:NameID", "Format", 8, 8, 8, 8, 8, 8, 8},
	{"saml:NameID", "NameQualifier", 8, 8, 8, 0, 8, 0, 0},
	{"samlp:NameIDPolicy", "AllowCreate", 0, 0, 8, 0, 8, 0, 0},
	{"samlp:NameIDPolicy", "Format", 17, 17, 8, 17, 8, 17, 17},
	{"saml:Conditions", "NotBefore", 0, 8, 8, 8, 8, 8, 8},
	{"saml:Conditions", "NotOnOrAfter", 0, 8, 8, 8, 8, 8, 8},
	{"samlp:RequestedAuthnContext", "Comparison", 0, 12, 12, 12, 12, 12, 12},
	{"samlp:Scoping", "ProxyCount", 0, 8, 8, skip, 8, 0, 8},
}

// elementMutations: the same of an element; text is for character data in an
// element that has none, pad and cut for the text of one that has.
var elementMutations = []struct {
	element                                   string
	drop, double, blank, tagCase, space, text int
	pad, cut                                  int
}{
	{"samlp:AuthnRequest", skip, skip, 10, 4, 4, 8, skip, skip},
	{"saml:Issuer", 10, 10, 10, 10, 10, skip, 0, 10},
	{"samlp:Extensions", 0, 8, 8, 8, 8, 8, skip, skip},
	{"spid:Purpose", 8, 8, 8, 0, skip, skip, 0, 8},
	{"saml:Subject", 0, 8, 8, 8, 8, 8, skip, skip},
	{"saml:NameID", 8, 8, 0, 8, 8, skip, 0, 0},
	{"samlp:NameIDPolicy", 17, 8, 17, 8, 8, 8, skip, skip},
	{"saml:Conditions", 0, 8, 0, 8, 8, 8, skip, skip},
	{"samlp:RequestedAuthnContext", 12, 12, 12, 8, 8, 12, skip, skip},
	{"saml:AuthnContextClassRef", 12, 12, 12, 12, 12, skip, 0, 12},
	{"samlp:Scoping", 0, 8, 0, 8, 8, 8, skip, skip},
}

const rulesMutation = "SPID technical rules, AuthnRequest; SAML Core schema; table of anomalies"

func mutationRules() []Rule {
	var all []Rule
	add := func(what, title string, code int, change func(*request.Message)) {
		if code != skip {
			all = append(all, Rule{ID: "mutation-" + what, Source: rulesMutation, Title: title, Want: Expect{Code: code, NoID: code == 11},
				Change: func(m *request.Message) {
					m.Text = request.Full
					change(m)
				}})
		}
	}
	for _, t := range attributeMutations {
		attr := func(kind string, code int, f func(name, value string) string) {
			add("@"+local(t.element)+"-"+t.name+"-"+kind, t.element+"/@"+t.name+": "+kind, code, func(m *request.Message) {
				m.Text = changeAttribute(m.Text, t.element, t.name, f)
			})
		}
		attr("dropped", t.drop, func(string, string) string { return "" })
		attr("blank", t.blank, func(n, _ string) string { return ` ` + n + `=""` })
		attr("name-case", t.nameCase, func(n, v string) string { return ` ` + strings.ToLower(n) + `="` + v + `"` })
		attr("value-case", t.valueCase, func(n, v string) string { return ` ` + n + `="` + otherCase(v) + `"` })
		attr("namespace", t.space, func(n, v string) string { return ` xmlns:x="urn:example:x" x:` + n + `="` + v + `"` })
		attr("padded", t.pad, func(n, v string) string { return ` ` + n + `=" ` + v + ` "` })
		attr("cut", t.cut, func(n, v string) string { return ` ` + n + `="` + cut(v) + `"` })
		add("@"+local(t.element)+"-"+t.name+"-twice", t.element+"/@"+t.name+" twice: not XML", 4, func(m *request.Message) {
			m.Raw = func(doc string) string {
				return changeAttribute(doc, t.element, t.name, func(n, v string) string { return strings.Repeat(` `+n+`="`+v+`"`, 2) })
			}
		})
	}
	for _, t := range elementMutations {
		element := func(kind string, code int, f func(e markup) string) {
			add(local(t.element)+"-"+kind, t.element+": "+kind, code, func(m *request.Message) { m.Text = changeElement(m.Text, t.element, f) })
		}
		element("dropped", t.drop, func(markup) string { return "" })
		element("twice", t.double, func(e markup) string { return e.String() + e.String() })
		element("blank", t.blank, func(e markup) string { return blank(e) })
		element("tag-case", t.tagCase, func(e markup) string { return e.renamed(lowerFirst(e.tag)) })
		element("namespace", t.space, func(e markup) string { return e.renamed(otherPrefix(e.tag)) })
		element("with-text", t.text, func(e markup) string { e.inner += "testo"; return e.String() })
		element("padded", t.pad, func(e markup) string { e.inner = "\n\t  " + e.inner + " \n"; return e.String() })
		element("cut", t.cut, func(e markup) string { e.inner = cut(e.inner); return e.String() })
	}
	return slices.Concat(all, orderMutations(), neutralMutations())
}

// orderMutations swap neighbours.
func orderMutations() []Rule {
	var all []Rule
	tags := []string{"saml:Issuer", "samlp:Extensions", "saml:Subject", "samlp:NameIDPolicy", "saml:Conditions", "samlp:RequestedAuthnContext", "samlp:Scoping"}
	for i, first := range tags[:len(tags)-1] {
		second := tags[i+1]
		all = append(all, Rule{ID: "mutation-" + local(second) + "-before-" + local(first), Source: rulesMutation, Title: second + " before " + first, Want: Expect{Code: 8},
			Change: func(m *request.Message) {
				// The signature stays the second element, so that only the order is wrong.
				var a, b string
				text := changeElement(request.Full, first, func(e markup) string { a = e.String(); return "" })
				text = changeElement(text, second, func(e markup) string { b = e.String(); return "{second}" })
				if i == 0 {
					text = strings.Replace(text, "{second}", "", 1)
					m.Text = strings.Replace(text, request.SignatureMark, b+request.SignatureMark+a, 1)
					return
				}
				m.Text = strings.Replace(text, "{second}", b+a, 1)
			}})
	}
	return append(all, only(request.Post, variants("mutation", "table of anomalies, row 7: not conformant", variant{"signature-last", "the signature in another place", func(m *request.Message) {
		m.Text = strings.Replace(strings.Replace(request.Full, request.SignatureMark, "", 1), "</samlp:AuthnRequest>", request.SignatureMark+"</samlp:AuthnRequest>", 1)
	}, 7}))...)
}

// neutralMutations change nothing that means anything.
func neutralMutations() []Rule {
	full := func(f func(string) string) func(*request.Message) {
		return func(m *request.Message) { m.Text = f(request.Full) }
	}
	return variants("neutral", "XML 1.0; Namespaces in XML: the same document",
		variant{"indented", "white space between elements", full(func(s string) string {
			return strings.ReplaceAll(strings.ReplaceAll(s, "><", ">\n    <"), ">"+request.SignatureMark+"<", ">\n  "+request.SignatureMark+"\n  <")
		}), 0},
		variant{"attributes-reversed", "attributes in another order", full(func(s string) string {
			return regexp.MustCompile(`<([a-z]+:\w+)((?: [\w:]+="[^"]*")+)`).ReplaceAllStringFunc(s, reverseAttributes)
		}), 0},
		variant{"apostrophes", "apostrophes around values", full(func(s string) string { return strings.ReplaceAll(s, `"`, `'`) }), 0},
		variant{"prefixes", "other prefixes", full(func(s string) string {
			return strings.NewReplacer("xmlns:samlp=", "xmlns:p=", "xmlns:saml=", "xmlns:a=", "samlp:", "p:", "saml:", "a:").Replace(s)
		}), 0},
		variant{"default-namespace", "the protocol as default namespace", full(func(s string) string {
			return strings.NewReplacer("xmlns:samlp=", "xmlns=", "samlp:", "").Replace(s)
		}), 0},
		variant{"late-declaration", "namespaces declared where they are used", full(func(s string) string {
			return strings.NewReplacer(` xmlns:saml="`+request.NSAssertion+`"`, "", "<saml:Issuer", `<saml:Issuer xmlns:saml="`+request.NSAssertion+`"`, "<saml:Subject", `<saml:Subject xmlns:saml="`+request.NSAssertion+`"`,
				"<saml:Conditions", `<saml:Conditions xmlns:saml="`+request.NSAssertion+`"`, "<saml:AuthnContextClassRef", `<saml:AuthnContextClassRef xmlns:saml="`+request.NSAssertion+`"`).Replace(s)
		}), 0},
		variant{"references", "characters as references", full(func(s string) string {
			return strings.NewReplacer(">{entity}<", ">&#x68;{entity-tail}<", "SpidL2", "Spid&#76;2").Replace(s)
		}), 0},
		variant{"declaration", "an XML declaration", func(m *request.Message) {
			m.Raw = func(doc string) string { return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + doc }
		}, 0},
	)
}

// markup is one element as text.
type markup struct{ tag, attrs, inner string }

// String writes the element with an end tag.
func (e markup) String() string { return "<" + e.tag + e.attrs + ">" + e.inner + "</" + e.tag + ">" }

func (e markup) renamed(tag string) string { e.tag = tag; return e.String() }

func local(tag string) string { return tag[strings.IndexByte(tag, ':')+1:] }

// blank takes attributes and content away, except what keeps the document XML,
// and the attributes of an element whose text it is about.
func blank(e markup) string {
	switch local(e.tag) {
	case "AuthnRequest", "Issuer", "NameID", "Purpose", "AuthnContextClassRef":
		e.inner = ""
	default:
		e.attrs, e.inner = "", ""
	}
	return e.String()
}

func lowerFirst(tag string) string {
	prefix, name, _ := strings.Cut(tag, ":")
	return prefix + ":" + strings.ToLower(name[:1]) + name[1:]
}

// otherPrefix names the element in the other SAML namespace.
func otherPrefix(tag string) string {
	if name, ok := strings.CutPrefix(tag, "saml:"); ok {
		return "samlp:" + name
	}
	return "saml:" + local(tag)
}

// cut puts a blank into the middle of a value.
func cut(v string) string {
	switch {
	case len(v) < 2:
		return v + " " + v
	case strings.HasPrefix(v, "{"): // a placeholder is one token
		return v + " x"
	}
	return v[:len(v)/2] + " " + v[len(v)/2:]
}

// otherCase writes a value in capitals, or in small letters when it has capitals;
// placeholders keep theirs and get a text that differs in case only.
func otherCase(v string) string {
	switch v {
	case "{now}", "{later}":
		return strings.ToLower(v[:len(v)-1]) + "-lower}"
	case "{destination}":
		return "{destination-upper}"
	case "{entity}":
		return "{entity-upper}"
	}
	return strings.ToUpper(v)
}

// changeElement replaces the first element with that tag.
func changeElement(text, tag string, f func(markup) string) string {
	at := regexp.MustCompile(`<` + tag + `([ >/])`).FindStringIndex(text)
	if at == nil {
		return text
	}
	start := at[0]
	head := start + strings.IndexByte(text[start:], '>')
	e := markup{tag: tag, attrs: strings.TrimSuffix(text[start+1+len(tag):head], "/")}
	end := head + 1
	if text[head-1] != '/' {
		closing := strings.Index(text[head:], "</"+tag+">")
		e.inner = text[head+1 : head+closing]
		end = head + closing + len("</"+tag+">")
	}
	return text[:start] + f(e) + text[end:]
}

// changeAttribute replaces an attribute, blank before it included.
func changeAttribute(text, tag, name string, f func(name, value string) string) string {
	re := regexp.MustCompile(`(<` + tag + `(?: [^<>]*?)?) ` + name + `="([^"]*)"`)
	at := re.FindStringSubmatchIndex(text)
	if at == nil {
		return text
	}
	return text[:at[3]] + f(name, text[at[4]:at[5]]) + text[at[1]:]
}

func reverseAttributes(tag string) string {
	parts := regexp.MustCompile(` [\w:]+="[^"]*"`).FindAllString(tag, -1)
	name, _, _ := strings.Cut(tag, " ")
	slices.Reverse(parts)
	return name + strings.Join(parts, "")
}
