package export

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"custode/internal/certlog"
	"custode/internal/certlog/attest"
	"custode/internal/certlog/certlogtest"
	"custode/internal/fault"
)

// TestSealed: what is sealed and stamped is copied once, verifies, and nothing else is there.
func TestSealed(t *testing.T) {
	h := certlogtest.NewHouse(t)
	h.Fill()
	h.Open()
	h.Append(2) // stays open
	defer h.Stop()
	h.Write(filepath.Join(h.Dir, "holds.json"), []byte("[]"))
	h.Write(h.Path(2, "bes"), []byte("left over"))
	to := filepath.Join(t.TempDir(), "copy")
	n, err := Sealed(h.Dir, to)
	if err != nil || n != 3*5+2 {
		t.Fatalf("%d files, %v", n, err)
	}
	for _, name := range []string{"000000000002.bes", "000000000004.seg", "000000000004.key"} {
		if _, err := os.Stat(filepath.Join(to, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was copied: %v", name, err)
		}
	}
	if st, err := os.Stat(filepath.Join(to, "000000000001.seg")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	cfg := h.Judgement()
	cfg.FS, cfg.Now = certlog.Dir(to), time.Now()
	if r, err := certlog.Verify(cfg); err != nil || r.Problem != nil || r.Records != 15 {
		t.Errorf("%+v, %v", r, err)
	}
	kept := filepath.Join(to, "000000000001.seg")
	h.Write(kept, []byte("the archive's"))
	if n, err = Sealed(h.Dir, to); err != nil || n != 0 || string(h.Read(kept)) != "the archive's" {
		t.Errorf("again: %d files, %v", n, err)
	}
	if _, err := Sealed(filepath.Join(h.Dir, "nowhere"), to); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no log: %v", err)
	}
	if _, err := Sealed(h.Dir, kept); !fault.Is(err, fault.Unavailable) {
		t.Errorf("into a file: %v", err)
	}
}

func read(t *testing.T, text []byte) (out []line) {
	t.Helper()
	for one := range bytes.Lines(text) {
		var l line
		if err := json.Unmarshal(one, &l); err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// full stops after the first write.
type full struct{ n int }

func (f *full) Write(p []byte) (int, error) {
	if f.n++; f.n > 1 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// TestPlain: records of both kinds in clear, with the token's key or the escrow's, sealed
// or, on demand, not.
func TestPlain(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h := certlogtest.NewHouse(t)
	h.Escrow = &key.PublicKey
	h.Open()
	defer h.Stop()
	add := func(data []byte) {
		t.Helper()
		if _, err := h.Log.Append(t.Context(), certlog.Record{Tag: "a", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := attest.Access{At: time.Now(), Code: 1, SPIDCode: "LABX0000000001", Request: attest.Message{XML: []byte("<AuthnRequest/>")}, Response: attest.Message{XML: []byte("<Response/>")}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	add(a)
	h.Seal()
	add([]byte(`{"what":"start"}`))
	h.Seal()
	add([]byte(`{"what":"open"}`))
	r, err := certlog.NewReader(certlog.Dir(h.Dir), h.Notary)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]certlog.Wrapper{"token": certlogtest.Keys{}, "escrow": certlog.Escrow(key)} {
		var out bytes.Buffer
		n, err := Plain(t.Context(), &out, r, w, Selection{Unsealed: true})
		if err != nil || n != 3 {
			t.Fatalf("%s: %d records, %v", name, n, err)
		}
		got := read(t, out.Bytes())
		if got[0].Access == nil || got[0].Access.SPIDCode != "LABX0000000001" || got[0].RequestXML != "<AuthnRequest/>" || got[0].ResponseXML != "<Response/>" || got[0].Unsealed {
			t.Errorf("%s: %+v", name, got[0])
		}
		if string(got[1].Event) != `{"what":"start"}` || got[1].Seq != 1 || got[1].Unsealed || string(got[2].Event) != `{"what":"open"}` || !got[2].Unsealed {
			t.Errorf("%s: %+v", name, got[1:])
		}
	}
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		s    Selection
		want int
	}{
		"all that is sealed": {Selection{}, 2},
		"until yesterday":    {Selection{To: time.Now().Add(-day)}, 0},
		"from tomorrow":      {Selection{From: time.Now().Add(day)}, 0},
		"around now":         {Selection{From: time.Now().Add(-day), To: time.Now().Add(day)}, 2},
	} {
		if n, err := Plain(t.Context(), &bytes.Buffer{}, r, certlogtest.Keys{}, c.s); err != nil || n != c.want {
			t.Errorf("%s: %d records, %v", name, n, err)
		}
	}
	var out bytes.Buffer
	if n, err := Plain(t.Context(), &out, r, certlog.Escrow(other), Selection{Unsealed: true}); n != 0 || !fault.Is(err, fault.Invalid) || out.Len() > 0 {
		t.Errorf("another escrow key: %d, %v", n, err)
	}
	if _, err := Plain(t.Context(), &full{}, r, certlogtest.Keys{}, Selection{}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a full disk: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Plain(ended, &out, r, certlogtest.Keys{}, Selection{}); err == nil {
		t.Error("a call that was given up goes on")
	}
	// Records in another segment's file do not become its.
	h.Write(h.Path(3, "seg"), h.Read(h.Path(2, "seg")))
	if _, err := Plain(t.Context(), &out, r, certlogtest.Keys{}, Selection{Unsealed: true}); err == nil {
		t.Error("a segment in another's place")
	}
}
