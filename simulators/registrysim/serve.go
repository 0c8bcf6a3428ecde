package registrysim

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is a way to misbehave.
type Fault int

// The faults.
const (
	None         Fault = iota
	BadSignature       // a letter of the body is another
	ForeignKey         // signed by a key that nobody pinned
	Half               // the connection ends in the middle, without a word
	Cut                // the document ends in the middle, in a complete answer
	Drip               // an octet now and then
	Endless            // entities without end
	GzipBomb           // a small answer that grows without end
	WrongType          // the right octets as text/html
	Maintenance        // an HTML page with status 200
	ServerError        // status 500
	Elsewhere          // a redirect to another host
	Moved              // a redirect to the same host
	Restless           // the totals change from page to page
	BadListing         // the listing is cut
	OldETag            // says "not modified" to everybody
)

func (s *Sim) serveAggregate(w http.ResponseWriter, r *http.Request) {
	e, fault := s.current()
	q := r.URL.Query()
	p := span{e.Number, 0, e.size()}
	if q.Has("page") {
		if !s.page(w, r, e, fault, &p) {
			return
		}
	}
	tag := fmt.Sprintf(`"%d-%d-%d"`, p.edition, p.from, p.to)
	switch {
	case fault == Moved && !q.Has("moved"):
		http.Redirect(w, r, r.URL.String()+"&moved=1", http.StatusFound)
		return
	case fault == Elsewhere:
		http.Redirect(w, r, "http://registry.invalid/entities", http.StatusFound)
		return
	case fault == ServerError:
		http.Error(w, "guasto", http.StatusInternalServerError)
		return
	case fault == Maintenance:
		w.Header().Set("Content-Type", "application/xml")
		_, _ = io.WriteString(w, "<!DOCTYPE html><html><body>Manutenzione</body></html>")
		return
	case r.Header.Get("If-None-Match") == tag || fault == OldETag:
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/samlmetadata+xml; charset=UTF-8")
	w.Header().Set("ETag", tag)
	if fault == WrongType {
		w.Header().Set("Content-Type", "text/html")
	}
	sig, err := s.signature(e, p, fault == ForeignKey)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.write(r.Context(), w, e, p, sig, fault)
}

// page finds the span of a page and sets its headers.
func (s *Sim) page(w http.ResponseWriter, r *http.Request, e *Edition, fault Fault, p *span) bool {
	n, err1 := strconv.Atoi(r.URL.Query().Get("page"))
	size, err2 := strconv.Atoi(r.URL.Query().Get("numMetadata"))
	pages := 0
	if err2 == nil && size > 0 {
		pages = (e.size() + size - 1) / size
	}
	if err1 != nil || n < 1 || n > pages {
		http.Error(w, "no such page", http.StatusBadRequest)
		return false
	}
	p.from, p.to = (n-1)*size, min(n*size, e.size())
	total := e.size()
	if fault == Restless {
		total += n
	}
	w.Header().Set("tot-metadata", strconv.Itoa(total))
	w.Header().Set("tot-pages", strconv.Itoa(pages))
	w.Header().Set("current-page", strconv.Itoa(n))
	return true
}

// write sends the document with the fault.
func (s *Sim) write(ctx context.Context, w http.ResponseWriter, e *Edition, p span, sig string, fault Fault) {
	if fault == GzipBomb {
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		defer z.Close()
		s.spam(ctx, z, e, p, sig)
		return
	}
	if fault == Endless {
		s.spam(ctx, w, e, p, sig)
		return
	}
	head := `<?xml version="1.0" encoding="UTF-8"?>` + "\n<!-- edizione simulata -->\n" + e.rootTag(p) + sig
	sent := 0
	half := errHalf(false)
	send := func(b []byte) error {
		sent += len(b)
		if (fault == Half || fault == Cut) && sent > 20_000 {
			half = true
			return half
		}
		if fault == Drip {
			return drip(ctx, w, b)
		}
		_, err := w.Write(b)
		return err
	}
	if send([]byte(head)) != nil {
		return
	}
	changed := fault != BadSignature
	err := s.body(e, p, func(b []byte) error {
		if !changed {
			b = []byte(strings.Replace(string(b), "/acs/0", "/acs/9", 1))
			changed = true
		}
		return send(b)
	})
	if half && fault == Half {
		panic(http.ErrAbortHandler)
	}
	if err == nil {
		_ = send([]byte(rootEnd + "\n"))
	}
}

type errHalf bool

func (errHalf) Error() string { return "half is sent" }

// drip sends a few octets each tenth of a second.
func drip(ctx context.Context, w http.ResponseWriter, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), 20)
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		b = b[n:]
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// spam sends well-formed entities as long as somebody listens.
func (s *Sim) spam(ctx context.Context, w io.Writer, e *Edition, p span, sig string) {
	if _, err := io.WriteString(w, e.rootTag(p)+sig); err != nil {
		return
	}
	// Many at once, so that a bomb is worth its name.
	block := []byte(strings.Repeat(string(s.appendEntity([]byte{'\n'}, 1, 0)), 100))
	for ctx.Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// listed is an entry of the listing.
type listed struct {
	EntityID         string `json:"entity_id"`
	OrganizationName string `json:"organization_name"`
	DisplayName      string `json:"organization_display_name"`
	Code             string `json:"code"`
	OrganizationType string `json:"organization_type"`
	FederationType   string `json:"federation_type"`
	AggregatorName   string `json:"aggregator_name"`
	Created          string `json:"create_date"`
	Deletion         string `json:"delete_date,omitempty"`
	Disabled         string `json:"_disabled"`
	Deleted          string `json:"_deleted"`
	RegistryLink     string `json:"registry_link"`
}

func (s *Sim) serveListing(w http.ResponseWriter, r *http.Request) {
	e, fault := s.current()
	tag := fmt.Sprintf(`"listing-%d"`, e.Number)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", tag)
	yes := map[bool]string{true: "Y", false: "N"}
	enc := json.NewEncoder(w)
	separator := "["
	put := func(l listed) error {
		_, _ = io.WriteString(w, separator)
		separator = ","
		return enc.Encode(l)
	}
	for i := range e.Entities {
		l := listed{EntityID: EntityID(i), OrganizationName: organization(i), DisplayName: organization(i), Code: fmt.Sprintf("c_%d", i), OrganizationType: "PA",
			FederationType: "SP", Created: "2024-01-01", Disabled: yes[e.Disabled[i]], Deleted: yes[e.Deleted[i]], RegistryLink: "https://registry.example.it/entities-sp/" + strconv.Itoa(i)}
		if i%7 != 0 {
			l.FederationType, l.AggregatorName = "AG", fmt.Sprintf("Aggregatore %d S.p.A.", i%aggregators)
		}
		if err := put(l); err != nil || fault == BadListing && i == 5 {
			return
		}
	}
	for id, f := range e.ExtraFlags {
		_ = put(listed{EntityID: id, DisplayName: "Extra", Disabled: yes[f.Disabled], Deleted: yes[f.Deleted]})
	}
	if separator == "[" {
		_, _ = io.WriteString(w, "[")
	}
	_, _ = io.WriteString(w, "]")
}
