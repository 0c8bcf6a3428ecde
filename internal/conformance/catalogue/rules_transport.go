package catalogue

import (
	"bytes"
	"compress/zlib"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"custode/internal/conformance/request"
)

const (
	row4        = "table of anomalies, row 4"
	row6        = "table of anomalies, row 6"
	rulesRelay  = "SPID technical rules, RelayState; SAML Bindings 3.4.3 and 3.5.3"
	rulesQuery  = "SAML Bindings 3.4.4.1: the signature covers the octets as sent"
	divergences = "docs/divergences.md"
)

// Changes of the parameters after everything was signed.

func dropParam(name string) func(*request.Message) {
	return wire(func(ps []request.Param) []request.Param {
		return slices.DeleteFunc(ps, func(p request.Param) bool { return p.Name == name })
	})
}

func doubleParam(name, value string) func(*request.Message) {
	return wire(func(ps []request.Param) []request.Param {
		for _, p := range ps {
			if p.Name == name {
				if value != "" {
					p.Value, p.Raw = value, ""
				}
				return append(ps, p)
			}
		}
		return ps
	})
}

func blankParam(name string) func(*request.Message) {
	return eachParam(name, func(p *request.Param) { p.Value, p.Raw = "", "" })
}

func renameParam(name, to string) func(*request.Message) {
	return eachParam(name, func(p *request.Param) { p.Name = to })
}

func addParam(name, value string) func(*request.Message) {
	return wire(func(ps []request.Param) []request.Param { return append(ps, request.Param{Name: name, Value: value}) })
}

func eachParam(name string, change func(*request.Param)) func(*request.Message) {
	return wire(func(ps []request.Param) []request.Param {
		for i := range ps {
			if ps[i].Name == name {
				change(&ps[i])
			}
		}
		return ps
	})
}

func wire(f func([]request.Param) []request.Param) func(*request.Message) {
	return func(m *request.Message) { m.Wire = f }
}

// signedAs changes how a parameter is encoded before the query is signed.
func signedAs(name string, encode func(string) string) func(*request.Message) {
	return func(m *request.Message) {
		m.Query = func(ps []request.Param) []request.Param {
			for i := range ps {
				if ps[i].Name == name {
					ps[i].Raw = encode(ps[i].Value)
				}
			}
			return ps
		}
	}
}

// lowerEscapes writes %2f for %2F.
func lowerEscapes(v string) string {
	return regexp.MustCompile(`%[0-9A-F]{2}`).ReplaceAllStringFunc(url.QueryEscape(v), strings.ToLower)
}

// percentBlanks writes %20 for "+".
func percentBlanks(v string) string { return strings.ReplaceAll(url.QueryEscape(v), "+", "%20") }

func method(verb string) func(*request.Message) {
	return func(m *request.Message) { m.Send = func(r *http.Request) { r.Method = verb } }
}

// transportRules are about what carries the message: method, parameters,
// encodings, RelayState.
func transportRules() []Rule {
	all := []Rule{{ID: "valid", Source: "SPID technical rules, AuthnRequest", Title: "a valid request begins a login"}}
	all = append(all, Rule{ID: "valid-full", Source: "SPID technical rules, AuthnRequest", Title: "a valid request with every optional part begins a login",
		Change: func(m *request.Message) { m.Text = request.Full }})
	all = append(all, variants("page-en", "docs/design/authcore-web.md, pages in four languages; "+row4, variant{"row-4", "the page of anomaly 4 in English", func(m *request.Message) {
		dropParam("SAMLRequest")(m)
		m.Language = "en"
	}, 4})...)
	for _, verb := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		all = append(all, Rule{ID: "method-" + strings.ToLower(verb), Source: row6, Title: verb + " is no method of this location", Change: method(verb), Want: Expect{Code: 6}})
	}
	all = append(all, only(request.Redirect, variants("method", row6, variant{"post", "POST to the HTTP-request.Redirect location", func(m *request.Message) {
		m.Send = func(r *http.Request) {
			r.Method = http.MethodPost
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	}, 6}))...)
	all = append(all, only(request.Post, variants("method", row6, variant{"get", "GET to the HTTP-POST location", func(m *request.Message) {
		m.Send = func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0
			r.Header.Del("Content-Type")
		}
	}, 6}))...)
	all = append(all, only(request.Post, variants("form", row4,
		variant{"json", "a body that is no form", func(m *request.Message) {
			m.Send = func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }
		}, 4},
		variant{"multipart", "a body of another encoding", func(m *request.Message) {
			m.Send = func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") }
		}, 4},
		variant{"base64-lines", "base64 with line breaks is good", eachParam("SAMLRequest", func(p *request.Param) {
			p.Value = regexp.MustCompile(`.{1,76}`).ReplaceAllString(p.Value, "$0\r\n")
		}), 0},
		variant{"deflated", "a deflated document by HTTP-POST", eachParam("SAMLRequest", func(p *request.Param) { p.Value = "nZFBb4MwDIXv+xUo9w==" }), 4},
	))...)
	return slices.Concat(all, parameterRules(), encodingRules(), relayRules())
}

// parameterRules: each parameter dropped, blank, doubled, renamed.
func parameterRules() []Rule {
	all := variants("param", row4,
		variant{"request-missing", "SAMLRequest is missing", dropParam("SAMLRequest"), 4},
		variant{"request-blank", "SAMLRequest is empty", blankParam("SAMLRequest"), 4},
		variant{"request-case", "SAMLRequest under a name in lower case", renameParam("SAMLRequest", "samlrequest"), 4},
		variant{"request-twice", "SAMLRequest twice, the same", doubleParam("SAMLRequest", ""), 4},
		variant{"request-other", "SAMLRequest twice, with different values", doubleParam("SAMLRequest", "PHg+"), 4},
		variant{"request-encoded-name", "SAMLRequest once more under an encoded name", addParam("SAML%52equest", "PHg+"), 4},
		variant{"request-garbage", "SAMLRequest is not base64", eachParam("SAMLRequest", func(p *request.Param) { p.Value = "*" + p.Value[1:] }), 4},
		variant{"request-url-safe", "SAMLRequest is in the URL-safe base64", eachParam("SAMLRequest", func(p *request.Param) { p.Value = "_-" + p.Value[2:] }), 4},
		variant{"relay-twice", "RelayState twice", doubleParam("RelayState", ""), 4},
		variant{"unknown", "an unknown parameter is ignored", addParam("utm_source", "x"), 0},
	)
	all = append(all, only(request.Redirect, variants("param", row4,
		variant{"sigalg-missing", "SigAlg is missing", dropParam("SigAlg"), 4},
		variant{"signature-missing", "Signature is missing", dropParam("Signature"), 4},
		variant{"sigalg-twice", "SigAlg twice", doubleParam("SigAlg", ""), 4},
		variant{"sigalg-other", "SigAlg twice, the second weaker", doubleParam("SigAlg", request.RSASHA1), 4},
		variant{"signature-twice", "Signature twice", doubleParam("Signature", ""), 4},
		variant{"sigalg-case", "SigAlg in lower case", renameParam("SigAlg", "sigalg"), 4},
		variant{"signature-case", "Signature in lower case", renameParam("Signature", "signature"), 4},
		variant{"sigalg-blank", "SigAlg is empty", blankParam("SigAlg"), 5},
		variant{"signature-blank", "Signature is empty", blankParam("Signature"), 5},
		variant{"signature-garbage", "Signature is not base64", eachParam("Signature", func(p *request.Param) { p.Value = "*" + p.Value[1:] }), 5},
		variant{"reordered", "the parameters in another order: the signed order is fixed", wire(func(ps []request.Param) []request.Param {
			slices.Reverse(ps)
			return ps
		}), 0},
	))...)
	return append(all, only(request.Redirect, variants("param", divergences,
		variant{"response-beside", "a SAMLResponse beside the request", addParam("SAMLResponse", "PHg+"), 4},
		variant{"encoding-known", "SAMLEncoding names DEFLATE", addParam("SAMLEncoding", "urn:oasis:names:tc:SAML:2.0:bindings:URL-Encoding:DEFLATE"), 0},
		variant{"encoding-unknown", "SAMLEncoding names something else", addParam("SAMLEncoding", "urn:example:none"), 4},
	))...)
}

// encodingRules are about percent-encoding and DEFLATE.
func encodingRules() []Rule {
	all := only(request.Redirect, variants("query", rulesQuery,
		variant{"lower-escapes", "escapes in lower case, signed so", signedAs("SAMLRequest", lowerEscapes), 0},
		variant{"percent-blank", "blanks as %20, signed so", signedAs("RelayState", percentBlanks), 0},
		variant{"reencoded-case", "escapes changed to lower case after signing", eachParam("SigAlg", func(p *request.Param) { p.Raw = lowerEscapes(p.Value) }), 5},
		variant{"reencoded-blank", "+ changed to %20 after signing", eachParam("RelayState", func(p *request.Param) { p.Raw = percentBlanks(p.Value) }), 5},
		variant{"relay-changed", "RelayState changed after signing", eachParam("RelayState", func(p *request.Param) { p.Value += "x" }), 5},
		variant{"relay-removed", "RelayState removed after signing", dropParam("RelayState"), 5},
		variant{"relay-emptied", "RelayState emptied after signing", blankParam("RelayState"), 5},
		variant{"relay-added", "an empty RelayState added after signing", func(m *request.Message) {
			m.Relay, m.HasRelay = "", false
			addParam("RelayState", "")(m)
		}, 5},
		variant{"document-changed", "the document changed after signing", func(m *request.Message) {
			m.Tamper = changed
		}, 5},
	))
	packed := func(f func([]byte) []byte) func(*request.Message) { return func(m *request.Message) { m.Pack = f } }
	return append(all, only(request.Redirect, variants("Deflate", row4+"; "+divergences,
		variant{"none", "a document that is not deflated", packed(func(d []byte) []byte { return d }), 4},
		variant{"zlib", "a zlib header before the stream", packed(func(d []byte) []byte {
			var b bytes.Buffer
			z := zlib.NewWriter(&b)
			_, _ = z.Write(d) // a buffer takes everything
			_ = z.Close()
			return b.Bytes()
		}), 4},
		variant{"truncated", "half a stream", packed(func(d []byte) []byte { p := request.Deflate(d); return p[:len(p)/2] }), 4},
		variant{"trailing", "octets after the stream", packed(func(d []byte) []byte { return append(request.Deflate(d), "more"...) }), 4},
		variant{"bomb", "12 MiB of blanks in a few kilobytes", packed(func(d []byte) []byte {
			return request.Deflate(append(d, bytes.Repeat([]byte(" "), 12<<20)...))
		}), 4},
	))...)
}

// relayRules want RelayState back octet by octet, here with an error Response.
func relayRules() []Rule {
	late := func(relay string, has bool) func(*request.Message) {
		return func(m *request.Message) {
			m.Relay, m.HasRelay = relay, has
			m.Issued = m.Issued.Add(-time.Hour)
		}
	}
	return variants("relay", rulesRelay,
		variant{"absent", "no RelayState", late("", false), 13},
		variant{"empty", "an empty RelayState", late("", true), 13},
		variant{"long", "1,000 octets: the limit of 80 is not enforced", late(strings.Repeat("0123456789", 100), true), 13},
		variant{"markup", "markup", late(`"><script>alert(1)</script>&amp;'`, true), 13},
		variant{"escapes", "percent signs, plus signs and equal signs", late("%2f%2F+%20&a=b;c", true), 13},
		variant{"unicode", "letters beyond ASCII", late("però €uro 𝔸 \u00a0 עברית", true), 13},
		variant{"blanks", "blanks around", late("  x  ", true), 13},
		variant{"url", "an address", late("https://servizi.example.it/area?x=1&y=2#z", true), 13},
	)
}
