package certlogtest

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"custode/internal/certlog"
	"custode/simulators/tsasim"
)

// Tampering is something that somebody with the disk could do to a log that
// Fill made, and what verify must say of it.
type Tampering struct {
	Do      func(h *House)
	Segment uint64
	Want    string
	Witness bool // only a witness can know
}

// Tamperings lists them by name.
func Tamperings() map[string]Tampering {
	all := tamperedFiles()
	maps.Copy(all, tamperedSeals())
	return all
}

func tamperedFiles() map[string]Tampering {
	return map[string]Tampering{
		"flipped bit in a record": {func(h *House) {
			head, all := frames(h.Read(h.Path(2, "seg")))
			all[1][9] ^= 4
			mend(all[1])
			h.Write(h.Path(2, "seg"), join(head, all...))
		}, 2, "do not make the root", false},
		"removed record": {func(h *House) {
			head, all := frames(h.Read(h.Path(2, "seg")))
			h.Write(h.Path(2, "seg"), join(head, append(all[:2:2], all[3:]...)...))
		}, 2, "record 9 is damaged or missing", false},
		"removed last records": {func(h *House) {
			head, all := frames(h.Read(h.Path(3, "seg")))
			h.Write(h.Path(3, "seg"), join(head, all[:3]...))
		}, 3, "record 13 is damaged or missing", false},
		"swapped records": {func(h *House) {
			head, all := frames(h.Read(h.Path(1, "seg")))
			all[0], all[4] = all[4], all[0]
			h.Write(h.Path(1, "seg"), join(head, all...))
		}, 1, "do not make the root", false},
		"added record": {func(h *House) {
			head, all := frames(h.Read(h.Path(3, "seg")))
			h.Write(h.Path(3, "seg"), join(head, append(all, all[0])...))
		}, 3, "longer than what was sealed", false},
		"segment moved": {func(h *House) {
			h.Write(h.Path(2, "seg"), h.Read(h.Path(1, "seg")))
		}, 2, "another segment's", false},
		"removed segment": {func(h *House) {
			for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
				h.Remove(h.Path(2, s))
			}
		}, 2, "missing", false},
		"removed ciphertext": {func(h *House) { h.Remove(h.Path(2, "seg")) }, 2, "no sealed statement", false},
		"removed key":        {func(h *House) { h.Remove(h.Path(2, "key")) }, 2, "no sealed statement", false},
		"removed checkpoint": {func(h *House) { h.Remove(h.Path(2, "p7m")) }, 3, "a checkpoint was removed", false},
		"flipped bit in a key": {func(h *House) {
			b := h.Read(h.Path(2, "key"))
			b[len(b)/2] ^= 1
			h.Write(h.Path(2, "key"), b)
		}, 2, "000000000002.key is not the one that was sealed", false},
		"changed index": {func(h *House) {
			b := h.Read(h.Path(1, "idx"))
			h.Write(h.Path(1, "idx"), b[:len(b)-24])
		}, 1, "the index is not the one", false},
		"changed tree": {func(h *House) {
			b := h.Read(h.Path(1, "hsh"))
			b[40] ^= 1
			h.Write(h.Path(1, "hsh"), b)
		}, 1, "holds other hashes", false},
	}
}

func tamperedSeals() map[string]Tampering {
	return map[string]Tampering{
		"re-sealed with another key": {func(h *House) {
			h.Reseal(Notary(h.T, h.TSA), 2, func(*certlog.Checkpoint) {})
		}, 2, "not a trusted seal", false},
		"re-sealed with our key": {func(h *House) { // whoever could do this had the HSM: the next checkpoint names the old one
			h.Reseal(h.Notary, 2, func(c *certlog.Checkpoint) { c.Sealed = c.Sealed.Add(time.Second) })
		}, 3, "does not name the one before", false},
		"other root under our seal": {func(h *House) {
			h.Reseal(h.Notary, 3, func(c *certlog.Checkpoint) { c.Root[0] ^= 1 })
		}, 3, "do not make the root", false},
		"time-stamp of another seal": {func(h *House) {
			h.Forge(2, func(*tsasim.TSA) {}, h.Read(h.Path(1, "p7m")))
		}, 2, "time-stamp is not good", false},
		"time-stamp by nobody we trust": {func(h *House) {
			h.Forge(2, func(s *tsasim.TSA) { s.Misbehave(tsasim.OtherRoot) }, nil)
		}, 2, "time-stamp is not good", false},
		"time-stamp of the future": {func(h *House) {
			h.Forge(2, func(s *tsasim.TSA) { s.Misbehave(tsasim.WrongClock) }, nil)
		}, 2, "of the future", false},
		"checkpoint of another log": {func(h *House) {
			other := NewHouse(h.T)
			other.Notary = h.Notary
			other.Fill()
			h.Write(h.Path(2, "p7m"), other.Read(other.Path(2, "p7m")))
		}, 2, "of another log", false},
		"checkpoint of another segment": {func(h *House) {
			h.Write(h.Path(2, "p7m"), h.Read(h.Path(3, "p7m")))
		}, 2, "is of segment 3", false},
		"other log.json": {func(h *House) {
			var who map[string]any
			if err := json.Unmarshal(h.Read(filepath.Join(h.Dir, "log.json")), &who); err != nil {
				h.T.Fatal(err)
			}
			who["log"] = strings.Repeat("ab", 16)
			b, err := json.Marshal(who)
			if err != nil {
				h.T.Fatal(err)
			}
			h.Write(filepath.Join(h.Dir, "log.json"), append(b, 10))
		}, 1, "of another log", false},
		"rolled-back directory": {func(h *House) {
			for _, s := range []string{"seg", "key", "idx", "hsh", "p7m"} {
				h.Remove(h.Path(3, s))
			}
		}, 3, "old copy was put back", true},
	}
}
