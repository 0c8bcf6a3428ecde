package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"custode/authcore"
	"custode/internal/fault"
	"custode/internal/id"
)

// secret is what a flow's cookie holds: 256 random bits. Everything that proves
// "this browser" is derived from it, so no server key is needed and any process
// can check. It never reaches a log, a page or authcore, which sees its hash.
type secret [32]byte

const (
	flowCookiePrefix = "__Host-flow-"
	// maxFlowCookies bounds what one browser keeps: beyond it the oldest go, so
	// that the Cookie header stays far below Limits.Header.
	maxFlowCookies = 8
)

func newSecret(random io.Reader) (secret, error) {
	var k secret
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return secret{}, fault.New(fault.Unavailable, "draw cookie secret", err)
	}
	return k, nil
}

// browser is what authcore keeps of the secret.
func (k secret) browser() [32]byte { return sha256.Sum256(k[:]) }

// derive gives a value that only holders of the secret can make, different per
// purpose and for each flow or logout.
func (k secret) derive(purpose string, of fmt.Stringer, data string) string {
	return base64.RawURLEncoding.EncodeToString(k.mac(purpose, of, data))
}

func (k secret) mac(purpose string, of fmt.Stringer, data string) []byte {
	m := hmac.New(sha256.New, k[:])
	fmt.Fprintf(m, "custode/authcore/web/%s/1\x00%s\x00%s", purpose, of, data)
	return m.Sum(nil)
}

// formToken is the synchronizer token of the forms of a flow or logout.
func (k secret) formToken(of fmt.Stringer) string { return k.derive("form", of, "") }

func (k secret) checkFormToken(of fmt.Stringer, got []byte) bool {
	return hmac.Equal([]byte(k.formToken(of)), got)
}

func flowCookieName(flow id.FlowID) string {
	return flowCookiePrefix + strings.TrimPrefix(flow.String(), "f_")[:16]
}

// setCookie writes a Set-Cookie value. __Host- demands Secure, Path=/ and no
// Domain; browsers accept it from http://localhost too. A negative life deletes.
func setCookie(name, value string, life time.Duration) string {
	return fmt.Sprintf("%s=%s; Path=/; Max-Age=%d; Secure; HttpOnly; SameSite=Lax", name, value, max(0, int(life/time.Second)))
}

func (k secret) cookie(flow id.FlowID, life time.Duration) string {
	return setCookie(flowCookieName(flow), base64.RawURLEncoding.EncodeToString(k[:]), life)
}

// cookieValue finds a cookie in a Cookie header; "" when it is absent or comes
// twice with different values (then somebody else set one of them).
func cookieValue(header, name string) string {
	found, value := false, ""
	for part := range strings.SplitSeq(header, ";") {
		n, v, ok := strings.Cut(strings.Trim(part, " \t"), "=")
		if !ok || n != name {
			continue
		}
		if found && v != value {
			return ""
		}
		found, value = true, v
	}
	return value
}

func secretOf(header string, flow id.FlowID) (secret, bool) {
	return parseSecret(cookieValue(header, flowCookieName(flow)))
}

func parseSecret(v string) (secret, bool) {
	var k secret
	b, err := base64.RawURLEncoding.Strict().DecodeString(v)
	if err != nil || len(b) != len(k) {
		return secret{}, false
	}
	copy(k[:], b)
	return k, true
}

// surplusCookies returns Set-Cookie values that delete the oldest flow cookies
// beyond the limit, given that one more is about to be set. Browsers list
// cookies of equal path oldest first (RFC 6265bis 5.8.3).
func surplusCookies(header string) []string {
	var names []string
	for part := range strings.SplitSeq(header, ";") {
		n, _, _ := strings.Cut(strings.Trim(part, " \t"), "=")
		rest, ok := strings.CutPrefix(n, flowCookiePrefix)
		if ok && len(rest) == 16 && strings.Trim(rest, "0123456789abcdef") == "" {
			names = append(names, n)
		}
	}
	var del []string
	for i := 0; i < len(names)-maxFlowCookies+1 && i < 32; i++ {
		del = append(del, setCookie(names[i], "", -1))
	}
	return del
}

// A mark carries the notice of an answer over the redirect to the page, in the
// query parameter n, so that reloading the page never sends the answer again.
// It is bound to the flow and its browser: nobody can make a person's page show
// a notice with a link. It looks like "3.3.2.1767225600.<mac>": notice, step,
// attempts left, and the Unix second until which to wait.
func (k secret) mark(v *authcore.View, now time.Time) string {
	if v.Notice == authcore.NoticeNone {
		return ""
	}
	until := int64(0)
	if v.RetryAfter > 0 {
		until = now.Add(v.RetryAfter + time.Second - 1).Unix()
	}
	s := fmt.Sprintf("%d.%d.%d.%d", v.Notice, v.Step, v.AttemptsLeft, until)
	return s + "." + k.derive("notice", v.Flow, s)
}

// applyMark puts the notice of a mark into v, when it is ours, meant for the
// step the flow is in, and still true; it reports whether it was.
func (k secret) applyMark(mark string, v *authcore.View, now time.Time) bool {
	i := strings.LastIndexByte(mark, '.')
	if i < 0 || len(mark) > 128 || v.Notice != authcore.NoticeNone {
		return false
	}
	if !hmac.Equal([]byte(k.derive("notice", v.Flow, mark[:i])), []byte(mark[i+1:])) {
		return false
	}
	var n [4]int64
	for j, f := range strings.Split(mark[:i], ".") {
		var err error
		if j >= len(n) {
			return false
		}
		if n[j], err = strconv.ParseInt(f, 10, 64); err != nil {
			return false
		}
	}
	if authcore.Step(n[1]) != v.Step {
		return false
	}
	wait := time.Duration(0)
	if n[3] > 0 {
		if wait = time.Unix(n[3], 0).Sub(now); wait <= 0 {
			return false
		}
	}
	v.Notice, v.AttemptsLeft, v.RetryAfter = authcore.Notice(n[0]), int(n[2]), wait
	return true
}

// isMark reports whether s has only the octets of a mark, so that it may be
// repeated in a Location.
func isMark(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}
