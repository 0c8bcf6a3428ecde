package conformance

import "strings"

const (
	row5and7 = "table of anomalies, rows 5 and 7"
	row10    = "table of anomalies, row 10"
	algRules = "SPID technical rules, signatures: RSA with SHA-256, 384 or 512"
)

const issuerOpen = `<saml:Issuer Format="` + formatEntity + `" NameQualifier="{entity}">{entity}</saml:Issuer>`

func issuer(markup string) func(*message) { return swap(issuerOpen, markup) }

// issuerRules: who asks.
func issuerRules() []Rule {
	return append(variants("issuer", row10+"; SPID technical rules, Issuer",
		variant{"unknown", "an entityID that is in no registry", issuer(strings.ReplaceAll(issuerOpen, "{entity}", "https://nessuno.example.it")), 10},
		variant{"prefix", "an entityID that only begins as a registered one", issuer(strings.Replace(issuerOpen, ">{entity}<", ">{entity}.example.it<", 1)), 10},
		variant{"upper", "an entityID in capitals", func(m *message) {
			m.replace(issuerOpen, strings.Replace(issuerOpen, ">{entity}<", ">"+strings.ToUpper(m.entity)+"<", 1))
		}, 10},
		variant{"slash", "an entityID with one slash more", issuer(strings.Replace(issuerOpen, ">{entity}<", ">{entity}/<", 1)), 10},
		variant{"format-blank-after", "a blank after the Format", swap(formatEntity+`"`, formatEntity+` "`), 10},
		variant{"format-unspecified", "another Format", swap(formatEntity, formatUnspecified), 10},
		variant{"qualifier-blank", "a NameQualifier of blanks", swap(`NameQualifier="{entity}"`, `NameQualifier="  "`), 10},
		variant{"qualifier-other", "another URI as NameQualifier is good", swap(`NameQualifier="{entity}"`, `NameQualifier="https://www.example.it"`), 0},
		variant{"spaces", "white space around the entityID is good", issuer(strings.Replace(issuerOpen, ">{entity}<", ">\n   {entity}\n\t<", 1)), 0},
		variant{"nested", "an element inside Issuer", issuer(strings.Replace(issuerOpen, ">{entity}<", "><saml:Issuer>{entity}</saml:Issuer><", 1)), 10},
		variant{"idp", "the identity provider itself", issuer(strings.ReplaceAll(issuerOpen, "{entity}", "{idp}")), 10},
	), Rule{ID: "issuer-english", Source: "pages in two languages; " + row10, Title: "the page of anomaly 10 in English", want: expect{code: 10}, change: func(m *message) {
		m.language = "en"
		m.replace(formatEntity, formatUnspecified)
	}})
}

func algorithm(alg, digest string) func(*message) {
	return func(m *message) { m.sign.algorithm, m.sign.digest = alg, digest }
}

// signatureRules: whose signature, by which algorithm.
func signatureRules() []Rule {
	all := variants("signature", algRules,
		variant{"sha384", "RSA with SHA-384", algorithm(sigRSASHA384, digestSHA384), 0},
		variant{"sha512", "RSA with SHA-512", algorithm(sigRSASHA512, digestSHA512), 0},
		variant{"sha1", "RSA with SHA-1", algorithm(sigRSASHA1, digestSHA1), badSignature},
		variant{"sha224", "RSA with SHA-224", algorithm(sigRSASHA224, digestSHA224), badSignature},
	)
	all = append(all, variants("signature", row5and7,
		variant{"stranger", "a key of nobody, its certificate in the message", strangerKey(true), badSignature},
		variant{"stranger-hidden", "a key of nobody under the registered certificate", strangerKey(false), badSignature},
		variant{"hmac-spki", "HMAC with the public key as secret", hmacSecret(func(m *message) []byte { return m.sp.Main.Certificate.RawSubjectPublicKeyInfo }), badSignature},
		variant{"hmac-cert", "HMAC with the certificate as secret", hmacSecret(func(m *message) []byte { return m.sp.Main.Certificate.Raw }), badSignature},
		variant{"hmac-pem", "HMAC with the certificate's PEM as secret", hmacSecret(func(m *message) []byte { return certificatePEM(m.sp.Main.Certificate) }), badSignature},
		variant{"hmac-empty", "HMAC with an empty secret", hmacSecret(func(*message) []byte { return nil }), badSignature},
		variant{"ecdsa", "ECDSA", ecdsaKey, badSignature},
		variant{"unknown-algorithm", "an algorithm of nobody", func(m *message) {
			m.tamper, m.wire = nil, nil
			if m.binding == Post {
				m.raw = func(doc string) string { return strings.Replace(doc, sigRSASHA256, "urn:example:none", 1) }
				return
			}
			eachParam("SigAlg", func(p *param) { p.value = "urn:example:none" })(m)
		}, badSignature},
		variant{"spare-bit", "one bit of the signature changed", flipSignature, badSignature},
	)...)
	all = append(all, Rule{ID: "signature-expired", Source: row5and7, Title: "a registered key whose certificate is over", want: expect{code: badSignature}, needs: needExpired,
		change: func(m *message) {
			m.sign.key, m.sign.cert = m.sp.Expired.Key, m.sp.Expired.Certificate.Raw
		}})
	all = append(all, Rule{ID: "signature-other-sp", Source: row5and7 + ": not of the entityID", Title: "another registered SP's name under our key", want: expect{code: badSignature}, needs: needOther,
		change: issuer(strings.ReplaceAll(issuerOpen, "{entity}", "{other}"))})
	all = append(all, Rule{ID: "signature-english", Source: "pages in two languages; " + row5and7, Title: "the page of anomalies 5 and 7 in English", want: expect{code: badSignature},
		change: func(m *message) {
			m.language = "en"
			strangerKey(false)(m)
		}})
	all = append(all, only(Post, variants("signature", row5and7, variant{"absent", "no signature", func(m *message) {
		m.text = strings.Replace(m.text, signatureMark, "", 1)
	}, 7}))...)
	return append(all, only(Redirect, variants("signature", divergences+"; SPID technical rules, HTTP-Redirect", variant{"embedded", "a signature element in the document", func(m *message) {
		m.raw = func(doc string) string {
			signed, err := m.sign.enveloped(strings.Replace(doc, "</saml:Issuer>", "</saml:Issuer>"+signatureMark, 1))
			if err != nil {
				return doc
			}
			return signed
		}
	}, 5}))...)
}
