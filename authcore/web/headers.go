package web

import (
	"cmp"
	"strconv"

	"github.com/valyala/fasthttp"
)

// pagePolicy is the Content-Security-Policy of every page but the hand-over: no
// script at all.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// handOverPolicy allows the one script that submits the form, and the form to
// leave. form-action cannot be narrowed to the ACS's origin: Chromium applies
// it to the redirects that follow a form's submission too (seen with 156), and
// service providers redirect from the ACS to other hosts of theirs. The form's
// target is the template's only one and comes from verified metadata. acs is
// "" or the origin of an ACS that is not https; nonce is "" for no script.
func handOverPolicy(nonce, acs string) string {
	if acs != "" {
		acs = " " + acs
	}
	if nonce != "" {
		nonce = " script-src 'nonce-" + nonce + "';"
	}
	return "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self';" + nonce + " form-action https:" + acs + "; frame-ancestors 'none'; base-uri 'none'"
}

// setHeaders writes the headers that every answer has.
func (s *Server) setHeaders(h *fasthttp.ResponseHeader, a answer) {
	h.Set("Content-Security-Policy", cmp.Or(a.csp, pagePolicy))
	// Not no-referrer: it makes browsers send "Origin: null" with our own forms
	// (Fetch, "append a request Origin header"), which the check of the origin
	// refuses.
	h.Set("Referrer-Policy", cmp.Or(a.referrer, "same-origin"))
	h.Set("Cache-Control", cmp.Or(a.cache, "no-store"))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()")
	if a.language != "" {
		h.Set("Content-Language", a.language)
	}
	if a.cache == "" { // pages, and redirects that set or keep a language
		h.Set("Vary", "Accept-Language, Cookie")
	}
	if s.https {
		h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
}
