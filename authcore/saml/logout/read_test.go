package logout

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"

	"custode/authcore/saml"
	"custode/authcore/saml/query"
	"custode/internal/fault"
	"custode/internal/id"
)

// arrive sends the document by each binding, signed with k.
func arrive(t *testing.T, parameter, doc string, k kit) map[saml.Binding]func() (Verified, error) {
	r := testReader(t)
	signed := sign(t, doc, k)
	bySOAP := r.SOAP
	if parameter == query.Response {
		bySOAP = r.SOAPAnswer
	}
	return map[saml.Binding]func() (Verified, error){
		saml.Redirect: func() (Verified, error) { return r.Redirect([]byte(redirected(t, parameter, doc, "r s", k)), kitNow) },
		saml.Post:     func() (Verified, error) { return r.Post(parameter, b64(signed), []byte("r s"), true, kitNow) },
		saml.SOAP:     func() (Verified, error) { return bySOAP([]byte(soapBefore+signed+soapAfter), kitNow) },
	}
}

func TestGoodRequest(t *testing.T) {
	for binding, read := range arrive(t, query.Request, plainRequest, spKit()) {
		v, err := read()
		if err != nil {
			t.Fatalf("binding %d: %v", binding, err)
		}
		got, ok := v.Request()
		want := Request{ID: "_q1", SP: entity(spEntity), Binding: binding, NameID: goodName,
			SessionIndexes: []string{goodIndex}, RelayState: "r s", HasRelayState: true}
		if binding == saml.SOAP {
			want.RelayState, want.HasRelayState = "", false
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b id.EntityID) bool { return a == b })); !ok || diff != "" {
			t.Errorf("binding %d: %s", binding, diff)
		}
		if _, ok := v.Response(); ok {
			t.Error("a request is a response too")
		}
	}
}

func TestGoodResponse(t *testing.T) {
	for binding, read := range arrive(t, query.Response, plainResponse, spKit()) {
		v, err := read()
		if err != nil {
			t.Fatalf("binding %d: %v", binding, err)
		}
		got, ok := v.Response()
		if !ok || got.InResponseTo != "_ours" || got.SP != entity(spEntity) || !got.Success() {
			t.Errorf("binding %d: %+v", binding, got)
		}
	}
}

// TestRequestVariants: what is tolerated and what is refused, over each binding.
func TestRequestVariants(t *testing.T) {
	async := `<samlp:Extensions><aslo:Asynchronous xmlns:aslo="urn:oasis:names:tc:SAML:2.0:protocol:ext:async-slo"/></samlp:Extensions>`
	for name, c := range map[string]struct {
		old, new string
		good     bool
	}{
		"issuer with blanks":     {">https://sp.example.it<", ">\n https://sp.example.it\n<", true},
		"issuer as SPID wants":   {"<saml:Issuer>", `<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity" NameQualifier="https://sp.example.it">`, true},
		"asynchronous":           {"</saml:Issuer>", "</saml:Issuer>" + async, true},
		"no session index":       {"<samlp:SessionIndex>" + goodIndex + "</samlp:SessionIndex>", "", true},
		"two session indexes":    {"</samlp:LogoutRequest>", "<samlp:SessionIndex>x</samlp:SessionIndex></samlp:LogoutRequest>", true},
		"no NotOnOrAfter":        {` NotOnOrAfter="2026-11-21T19:09:59Z"`, "", true},
		"destination entityID":   {`Destination="https://idp.example.it/slo/post"`, `Destination="https://idp.example.it"`, true},
		"NotOnOrAfter is past":   {`NotOnOrAfter="2026-11-21T19:09:59Z"`, `NotOnOrAfter="2026-11-21T19:05:00Z"`, false},
		"NotOnOrAfter malformed": {`NotOnOrAfter="2026-11-21T19:09:59Z"`, `NotOnOrAfter="later"`, false},
		"another's destination":  {`Destination="https://idp.example.it/slo/post"`, `Destination="https://idp2.example.it/slo/post"`, false},
		"unknown issuer":         {">https://sp.example.it<", ">https://nobody.example.it<", false},
		"another's name":         {">https://sp.example.it<", ">https://other.example.it<", false},
		"version":                {`Version="2.0"`, `Version="1.1"`, false},
		"no version":             {` Version="2.0"`, ``, false},
		"identifier":             {`ID="_q1"`, `ID="1q"`, false},
		"old":                    {`IssueInstant="2026-11-21T19:04:59.500Z"`, `IssueInstant="2026-11-21T18:59:00Z"`, false},
		"future":                 {`IssueInstant="2026-11-21T19:04:59.500Z"`, `IssueInstant="2026-11-21T19:09:00Z"`, false},
		"offset":                 {`IssueInstant="2026-11-21T19:04:59.500Z"`, `IssueInstant="2026-11-21T20:04:59+01:00"`, false},
		"no NameID":              {`<saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient" NameQualifier="https://idp.example.it">` + goodName + `</saml:NameID>`, "", false},
		"empty NameID":           {goodName, " ", false},
		"two NameIDs":            {"<samlp:SessionIndex>", "<saml:NameID>y</saml:NameID><samlp:SessionIndex>", false},
		"foreign element":        {"<samlp:SessionIndex>", `<x:y xmlns:x="urn:x"/><samlp:SessionIndex>`, false},
		"foreign NameID":         {"<samlp:SessionIndex>", `<NameID xmlns="urn:x">z</NameID><samlp:SessionIndex>`, false},
		"text":                   {"<samlp:SessionIndex>", `text<samlp:SessionIndex>`, false},
	} {
		doc := replace(t, plainRequest, c.old, c.new)
		for binding, read := range arrive(t, query.Request, doc, spKit()) {
			v, err := read()
			if c.good != (err == nil) || err != nil && !fault.Is(err, fault.Denied) {
				t.Errorf("%s by binding %d: %v", name, binding, err)
			}
			if q, ok := v.Request(); ok != c.good || q.Asynchronous != (name == "asynchronous") {
				t.Errorf("%s by binding %d: %+v", name, binding, q)
			}
		}
	}
	noDestination := replace(t, plainRequest, ` Destination="https://idp.example.it/slo/post"`, "")
	for binding, read := range arrive(t, query.Request, noDestination, spKit()) {
		if _, err := read(); (err == nil) != (binding == saml.SOAP) {
			t.Errorf("no destination by binding %d: %v", binding, err)
		}
	}
}

func TestForgedMessages(t *testing.T) {
	for parameter, doc := range map[string]string{query.Request: plainRequest, query.Response: plainResponse} {
		for binding, read := range arrive(t, parameter, doc, otherKit()) {
			if _, err := read(); !fault.Is(err, fault.Denied) {
				t.Errorf("%s signed by another, binding %d: %v", parameter, binding, err)
			}
		}
	}
	r, signed := testReader(t), sign(t, plainRequest, spKit())
	tampered := strings.Replace(signed, goodName, "_n_of_somebody_else", 1)
	query1 := redirected(t, query.Request, plainRequest, "-", spKit())
	for name, err := range map[string]error{
		"tampered post":       second(r.Post(query.Request, b64(tampered), nil, false, kitNow)),
		"tampered soap":       second(r.SOAP([]byte(soapBefore+tampered+soapAfter), kitNow)),
		"unsigned post":       second(r.Post(query.Request, b64(plainRequest), nil, false, kitNow)),
		"unsigned soap":       second(r.SOAP([]byte(soapBefore+plainRequest+soapAfter), kitNow)),
		"signed inside":       second(r.Redirect([]byte(redirected(t, query.Request, signed, "-", spKit())), kitNow)),
		"request as answer":   second(r.SOAPAnswer([]byte(soapBefore+signed+soapAfter), kitNow)),
		"request as reply":    second(r.Post(query.Response, b64(signed), nil, false, kitNow)),
		"bare, no envelope":   second(r.SOAP([]byte(signed), kitNow)),
		"two in a body":       second(r.SOAP([]byte(soapBefore+signed+plainResponse+soapAfter), kitNow)),
		"must understand":     second(r.SOAP([]byte(strings.Replace(soapBefore, "<S:Header/>", `<S:Header><a xmlns="urn:a" S:mustUnderstand="1"/></S:Header>`, 1)+signed+soapAfter), kitNow)),
		"added relay state":   second(r.Redirect([]byte(query1+"&RelayState="), kitNow)),
		"request twice":       second(r.Redirect([]byte(query1+"&"+query1[:strings.IndexByte(query1, '&')]), kitNow)),
		"both documents":      second(r.Redirect([]byte(query1+"&SAMLResponse=x"), kitNow)),
		"entity":              second(r.SOAP([]byte(`<!DOCTYPE a [<!ENTITY b "c">]>`+soapBefore+signed+soapAfter), kitNow)),
		"too long":            second(r.SOAP([]byte(soapBefore+signed+strings.Repeat(" ", MaxMessage)+soapAfter), kitNow)),
		"authentication":      second(r.Post(query.Request, b64(sign(t, strings.ReplaceAll(plainRequest, "LogoutRequest", "AuthnRequest"), spKit())), nil, false, kitNow)),
		"signature elsewhere": second(r.SOAP([]byte(soapBefore+signed+`</S:Body><S:Header><ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/></S:Header></S:Envelope>`), kitNow)),
	} {
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second(_ Verified, err error) error { return err }

// TestWrapping: the eight classic shapes of signature wrapping, made for a
// LogoutRequest: the signed request is moved, an evil one takes its place.
func TestWrapping(t *testing.T) {
	r, signed := testReader(t), sign(t, plainRequest, spKit())
	parse := func(s string) *etree.Element {
		d := etree.NewDocument()
		if err := d.ReadFromString(s); err != nil {
			t.Fatal(err)
		}
		return d.Root()
	}
	text := func(el *etree.Element) string {
		d := etree.NewDocument()
		d.SetRoot(el)
		s, err := d.WriteToString()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	evil := func(messageID string) *etree.Element {
		return parse(strings.NewReplacer(goodName, "_victim", `ID="_q1"`, `ID="`+messageID+`"`).Replace(plainRequest))
	}
	sig := func(of *etree.Element) *etree.Element {
		return of.RemoveChildAt(of.FindElement("./Signature").Index()).(*etree.Element)
	}
	shapes := map[string]func() string{
		"1 original inside evil, signature with evil": func() string {
			o, e := parse(signed), evil("_evil")
			s := sig(o)
			s.AddChild(o)
			e.InsertChildAt(1, s)
			return text(e)
		},
		"2 original beside its signature in evil": func() string {
			o, e := parse(signed), evil("_evil")
			e.InsertChildAt(1, sig(o))
			e.AddChild(o)
			return text(e)
		},
		"3 signed original as child of evil": func() string { e := evil("_evil"); e.AddChild(parse(signed)); return text(e) },
		"4 same identifier twice":            func() string { e := evil("_q1"); e.AddChild(parse(signed)); return text(e) },
		"5 original in extensions": func() string {
			e := evil("_evil")
			x := etree.NewElement("samlp:Extensions")
			x.AddChild(parse(signed))
			e.InsertChildAt(1, x)
			return text(e)
		},
		"6 original in an object of the signature": func() string {
			o, e := parse(signed), evil("_evil")
			s := sig(o)
			x := etree.NewElement("ds:Object")
			x.AddChild(o)
			s.AddChild(x)
			e.InsertChildAt(1, s)
			return text(e)
		},
		"7 evil inside the signed original": func() string { o := parse(signed); o.AddChild(evil("_evil")); return text(o) },
		"8 empty reference": func() string {
			o := parse(strings.Replace(signed, `URI="#_q1"`, `URI=""`, 1))
			o.FindElement("./NameID").SetText("_victim")
			return text(o)
		},
	}
	for name, shape := range shapes {
		doc := shape()
		if _, err := r.Post(query.Request, b64(doc), nil, false, kitNow); !fault.Is(err, fault.Denied) {
			t.Errorf("%s by post: %v", name, err)
		}
		if _, err := r.SOAP([]byte(soapBefore+doc+soapAfter), kitNow); !fault.Is(err, fault.Denied) {
			t.Errorf("%s by soap: %v", name, err)
		}
	}
	// In SOAP there is room outside the message too.
	aside := strings.Replace(soapBefore, "<S:Header/>", "<S:Header>"+signed+"</S:Header>", 1) + text(evil("_evil")) + soapAfter
	if _, err := r.SOAP([]byte(aside), kitNow); !fault.Is(err, fault.Denied) {
		t.Errorf("original in the header: %v", err)
	}
}

// TestInheritedNamespaces: a SOAP library may declare the prefixes on the
// envelope only.
func TestInheritedNamespaces(t *testing.T) {
	signed := sign(t, plainRequest, spKit())
	for _, declaration := range []string{` xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"`, ` xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"`} {
		signed = replace(t, signed, declaration, "")
	}
	envelope := strings.Replace(soapBefore, "<S:Envelope", `<S:Envelope xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:unused="urn:u"`, 1)
	v, err := testReader(t).SOAP([]byte(envelope+signed+soapAfter), kitNow)
	if q, ok := v.Request(); err != nil || !ok || q.NameID != goodName {
		t.Errorf("%+v, %v", q, err)
	}
}

// FuzzLogout: nothing makes the reader panic, and the fuzzer, which has no key,
// gets nothing through but the seeds.
func FuzzLogout(f *testing.F) {
	r := testReader(f)
	for _, doc := range []string{plainRequest, plainResponse} {
		f.Add([]byte(sign(f, doc, spKit())))
		f.Add([]byte(soapBefore + sign(f, doc, spKit()) + soapAfter))
	}
	f.Add([]byte(redirected(f, query.Request, plainRequest, "r", spKit())))
	f.Add([]byte(redirected(f, query.Response, plainResponse, "-", spKit())))
	check := func(t *testing.T, v Verified, err error) {
		q, isRequest := v.Request()
		p, isResponse := v.Response()
		if err != nil {
			if isRequest || isResponse || !fault.Is(err, fault.Denied) {
				t.Fatalf("%v with %+v %+v", err, q, p)
			}
			return
		}
		if isRequest == isResponse || isRequest && q.NameID != goodName || isResponse && p.InResponseTo != "_ours" {
			t.Fatalf("forged %+v %+v", q, p)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := r.Redirect(data, kitNow)
		check(t, v, err)
		for _, parameter := range []string{query.Request, query.Response} {
			v, err = r.Post(parameter, []byte(base64.StdEncoding.EncodeToString(data)), nil, false, kitNow)
			check(t, v, err)
		}
		v, err = r.SOAP(data, kitNow)
		check(t, v, err)
		v, err = r.SOAPAnswer(data, kitNow)
		check(t, v, err)
	})
}
