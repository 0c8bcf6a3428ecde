package saml

import (
	"strings"
	"testing"
)

// TestContents: what only the schema forbids inside the request's elements.
func TestContents(t *testing.T) {
	v := testVerifier(t)
	const policy, context = "<samlp:NameIDPolicy", "<samlp:RequestedAuthnContext"
	before := func(mark, markup string) string { return strings.Replace(plainRequest, mark, markup+mark, 1) }
	for name, tc := range map[string]struct {
		doc  string
		code Code
	}{
		"control":                   {plainRequest, 0},
		"extensions":                {before(policy, `<samlp:Extensions><x:a xmlns:x="u"/></samlp:Extensions>`), 0},
		"empty extensions":          {before(policy, `<samlp:Extensions/>`), NotConformant},
		"text in extensions":        {before(policy, `<samlp:Extensions>x<x:a xmlns:x="u"/></samlp:Extensions>`), NotConformant},
		"attribute of policy":       {strings.Replace(plainRequest, policy, policy+` allowcreate="true"`, 1), NotConformant},
		"foreign attribute":         {strings.Replace(plainRequest, policy, policy+` xmlns:x="u" x:Format="y"`, 1), NotConformant},
		"SPNameQualifier":           {strings.Replace(plainRequest, policy, policy+` SPNameQualifier="y" AllowCreate="1"`, 1), 0},
		"text in conditions":        {before(context, `<saml:Conditions>x</saml:Conditions>`), NotConformant},
		"empty conditions":          {before(context, `<saml:Conditions/>`), 0},
		"attribute of context":      {strings.Replace(plainRequest, context, context+` comparison="exact"`, 1), BadAuthnContext},
		"text in context":           {strings.Replace(plainRequest, "<saml:AuthnContextClassRef>", "x<saml:AuthnContextClassRef>", 1), BadAuthnContext},
		"text in scoping":           {strings.Replace(plainRequest, "</samlp:AuthnRequest>", "<samlp:Scoping>x</samlp:Scoping></samlp:AuthnRequest>", 1), NotConformant},
		"attribute of scoping":      {strings.Replace(plainRequest, "</samlp:AuthnRequest>", `<samlp:Scoping proxycount="0"/></samlp:AuthnRequest>`, 1), NotConformant},
		"text beside a subject":     {before(policy, `<saml:Subject>x<saml:NameID Format="`+formatUnspecified11+`" NameQualifier="q">n</saml:NameID></saml:Subject>`), NotConformant},
		"child of policy":           {strings.Replace(plainRequest, `transient"/>`, `transient"><x:a xmlns:x="u"/></samlp:NameIDPolicy>`, 1), NotConformant},
		"child of conditions":       {before(context, `<saml:Conditions><saml:OneTimeUse/><saml:Audience>x</saml:Audience></saml:Conditions>`), NotConformant},
		"foreign in conditions":     {before(context, `<saml:Conditions><x:OneTimeUse xmlns:x="u"/></saml:Conditions>`), NotConformant},
		"filled conditions":         {before(context, `<saml:Conditions><saml:AudienceRestriction><saml:Audience>x</saml:Audience></saml:AudienceRestriction></saml:Conditions>`), 0},
		"child of scoping":          {strings.Replace(plainRequest, "</samlp:AuthnRequest>", `<samlp:Scoping><samlp:Subject/></samlp:Scoping></samlp:AuthnRequest>`, 1), NotConformant},
		"requester in scoping":      {strings.Replace(plainRequest, "</samlp:AuthnRequest>", `<samlp:Scoping ProxyCount="0"><samlp:RequesterID>https://a.example</samlp:RequesterID></samlp:Scoping></samlp:AuthnRequest>`, 1), 0},
		"child of a subject's name": {before(policy, `<saml:Subject><saml:NameID Format="`+formatUnspecified11+`" NameQualifier="q">n<saml:x/></saml:NameID></saml:Subject>`), NotConformant},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.code != 0 && tc.doc == plainRequest {
				t.Fatal("the case changes nothing")
			}
			_, err := v.Post(b64(signPost(t, tc.doc, spKit().key, spKit().cert)), nil, false, kitNow)
			if r := refusalOf(t, err); r.Code != tc.code {
				t.Errorf("code %d, want %d: %v", r.Code, tc.code, err)
			}
		})
	}
}
