package attest_test

import (
	"crypto/sha256"
	"encoding/json"
	"slices"

	"custode/internal/certlog/attest"
)

// reseal makes the statement true about the files, under the provider's seal.
func (s *scene) reseal(files map[string][]byte, st attest.Statement) {
	s.t.Helper()
	st.Files = nil
	for name, octets := range files {
		if name != "attestation.p7m" && name != "attestation.sig" && name != "attestation.tst" {
			st.Files = append(st.Files, attest.File{Name: name, SHA256: sha256.Sum256(octets)})
		}
	}
	slices.SortFunc(st.Files, func(a, b attest.File) int { return len(a.Name) - len(b.Name) })
	payload, err := json.Marshal(st)
	if err != nil {
		s.t.Fatal(err)
	}
	sealed, err := s.notar.Seal(s.t.Context(), payload)
	if err == nil {
		files["attestation.p7m"], err = s.notar.Stamp(s.t.Context(), sealed)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
