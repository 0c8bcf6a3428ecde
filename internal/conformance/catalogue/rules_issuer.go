package catalogue

import (
	"strings"

	"custode/internal/conformance/request"
)

const (
	row5and7 = "table of anomalies, rows 5 and 7"
	row10    = "table of anomalies, row 10"
	algRules = "SPID technical rules, signatures: RSA with SHA-256, 384 or 512"
)

const issuerOpen = `<saml:Issuer Format="` + request.FormatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>`

func issuer(markup string) func(*request.Message) { return swap(issuerOpen, markup) }

// issuerRules: who asks.
func issuerRules() []Rule {
	return append(variants("issuer", row10+"; SPID technical rules, Issuer",
		variant{"unknown", "an entityID that is in no registry", issuer(strings.ReplaceAll(issuerOpen, "{entity}", "https://nessuno.example.it")), 10},
		variant{"prefix", "an entityID that only begins as a registered one", issuer(strings.Replace(issuerOpen, ">{entity}<", ">{entity}.example.it<", 1)), 10},
		variant{"upper", "an entityID in capitals", func(m *request.Message) {
			m.Replace(issuerOpen, strings.Replace(issuerOpen, ">{entity}<", ">"+strings.ToUpper(m.Entity)+"<", 1))
		}, 10},
		variant{"slash", "an entityID with one slash more", issuer(strings.Replace(issuerOpen, ">{entity}<", ">{entity}/<", 1)), 10},
		variant{"format-blank-after", "a blank after the Format", swap(request.FormatEntity+`"`, request.FormatEntity+` "`), 10},
		variant{"format-unspecified", "another Format", swap(request.FormatEntity, request.FormatUnspecified), 10},
		variant{"qualifier-blank", "a NameQualifier of blanks", swap(`NameQualifier="{entity}"`, `NameQualifier="  "`), 10},
		variant{"qualifier-other", "another URI as NameQualifier is good", swap(`NameQualifier="{entity}"`, `NameQualifier="https://www.example.it"`), 0},
		variant{"spaces", "white space around the entityID is good", issuer(strings.Replace(issuerOpen, ">{entity}<", ">\n   {entity}\n\t<", 1)), 0},
		variant{"nested", "an element inside Issuer", issuer(strings.Replace(issuerOpen, ">{entity}<", "><saml:Issuer>{entity}</saml:Issuer><", 1)), 10},
		variant{"idp", "the identity provider itself", issuer(strings.ReplaceAll(issuerOpen, "{entity}", "{idp}")), 10},
	), pageIn("en", "English"), pageIn("de", "German"), pageIn("sl", "Slovene"))
}

// pageIn: the official sentence is Italian in every language.
func pageIn(lang, name string) Rule {
	return Rule{ID: "issuer-page-" + lang, Source: "manual, pages in several languages; " + row10, Title: "the page of anomaly 10 in " + name,
		Want: Expect{Code: 10}, Change: func(m *request.Message) {
			m.Language = lang
			m.Replace(request.FormatEntity, request.FormatUnspecified)
		}}
}

func algorithm(alg, digest string) func(*request.Message) {
	return func(m *request.Message) { m.Sign.Algorithm, m.Sign.Digest = alg, digest }
}

// signatureRules: whose signature, by which algorithm.
func signatureRules() []Rule {
	all := variants("signature", algRules,
		variant{"sha384", "RSA with SHA-384", algorithm(request.RSASHA384, request.DigestSHA384), 0},
		variant{"sha512", "RSA with SHA-512", algorithm(request.RSASHA512, request.DigestSHA512), 0},
		variant{"sha1", "RSA with SHA-1", algorithm(request.RSASHA1, request.DigestSHA1), badSignature},
		variant{"sha224", "RSA with SHA-224", algorithm(request.RSASHA224, request.DigestSHA224), badSignature},
	)
	all = append(all, variants("signature", row5and7,
		variant{"stranger", "a key of nobody, its certificate in the message", strangerKey(true), badSignature},
		variant{"stranger-hidden", "a key of nobody under the registered certificate", strangerKey(false), badSignature},
		variant{"hmac-spki", "HMAC with the public key as secret", hmacSecret(func(m *request.Message) []byte { return m.SP.Main.Certificate.RawSubjectPublicKeyInfo }), badSignature},
		variant{"hmac-cert", "HMAC with the certificate as secret", hmacSecret(func(m *request.Message) []byte { return m.SP.Main.Certificate.Raw }), badSignature},
		variant{"hmac-pem", "HMAC with the certificate's PEM as secret", hmacSecret(func(m *request.Message) []byte { return certificatePEM(m.SP.Main.Certificate) }), badSignature},
		variant{"hmac-empty", "HMAC with an empty secret", hmacSecret(func(*request.Message) []byte { return nil }), badSignature},
		variant{"ecdsa", "ECDSA", ecdsaKey, badSignature},
		variant{"unknown-algorithm", "an algorithm of nobody", func(m *request.Message) {
			m.Tamper, m.Wire = nil, nil
			if m.Binding == request.Post {
				m.Raw = func(doc string) string { return strings.Replace(doc, request.RSASHA256, "urn:example:none", 1) }
				return
			}
			eachParam("SigAlg", func(p *request.Param) { p.Value = "urn:example:none" })(m)
		}, badSignature},
		variant{"spare-bit", "one bit of the signature changed", flipSignature, badSignature},
	)...)
	all = append(all, Rule{ID: "signature-expired", Source: row5and7, Title: "a registered key whose certificate is over", Want: Expect{Code: badSignature}, Needs: NeedExpired,
		Change: func(m *request.Message) {
			m.Sign.Key, m.Sign.Cert = m.SP.Expired.Key, m.SP.Expired.Certificate.Raw
		}})
	all = append(all, Rule{ID: "signature-other-sp", Source: row5and7 + ": not of the entityID", Title: "another registered request.SP's name under our key", Want: Expect{Code: badSignature}, Needs: NeedOther,
		Change: issuer(strings.ReplaceAll(issuerOpen, "{entity}", "{other}"))})
	all = append(all, Rule{ID: "signature-english", Source: "docs/design/authcore-web.md, pages in four languages; " + row5and7, Title: "the page of anomalies 5 and 7 in English", Want: Expect{Code: badSignature},
		Change: func(m *request.Message) {
			m.Language = "en"
			strangerKey(false)(m)
		}})
	all = append(all, only(request.Post, variants("signature", row5and7, variant{"absent", "no signature", func(m *request.Message) {
		m.Text = strings.Replace(m.Text, request.SignatureMark, "", 1)
	}, 7}))...)
	return append(all, only(request.Redirect, variants("signature", divergences+"; SPID technical rules, HTTP-request.Redirect", variant{"embedded", "a signature element in the document", func(m *request.Message) {
		m.Raw = func(doc string) string {
			signed, err := m.Sign.Enveloped(strings.Replace(doc, "</saml:Issuer>", "</saml:Issuer>"+request.SignatureMark, 1))
			if err != nil {
				return doc
			}
			return signed
		}
	}, 5}))...)
}
