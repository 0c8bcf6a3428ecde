// Package custody has the two file formats of a key backup: the backup itself, with
// keys wrapped for transport, and the custodians' shares of the secret that opens
// it. It wraps nothing: a token does (hsm/pkcs11/ceremony).
//
// A transport secret of 32 random octets gives, by HMAC-SHA-256, the AES key that
// wraps the keys and the key that authenticates the file. The secret exists only
// as shares (package shamir): a backup without enough of them is so many random
// octets.
//
// Backup: one line of text, then JSON.
//
//	custode backup 1 <64 hexadecimal digits: HMAC-SHA-256 of what follows>
//	{"format":1, ...}
//
// Share: six lines of text.
//
//	custode share 1
//	backup <32 hexadecimal digits>
//	number <i> of <n>, <m> needed
//	custodian <name>
//	value <64 hexadecimal digits>
//	checksum <16 hexadecimal digits: SHA-256 of the lines above, cut>
//
// Pure: files, clock and randomness are the caller's.
package custody

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"custode/hsm/shamir"
	"custode/internal/fault"
	"custode/internal/id"
)

// SecretLen is the length of a transport secret in octets.
const SecretLen = 32

// MaxBackup bounds a backup file, in octets.
const MaxBackup = 1 << 20

// MaxHolders bounds the custodians of one backup.
const MaxHolders = 16

// Secret opens a backup. The zero value is none.
type Secret [SecretLen]byte

// Clear makes s the zero value.
func (s *Secret) Clear() { clear(s[:]) }

func (s *Secret) derive(purpose string) []byte {
	h := hmac.New(sha256.New, s[:])
	h.Write([]byte("custode backup 1 " + purpose))
	return h.Sum(nil)
}

// TransportKey returns the AES-256 key that wraps the keys. The caller clears it.
func (s *Secret) TransportKey() []byte { return s.derive("wrap") }

// Backup is the content of a backup file.
type Backup struct {
	Format    int       `json:"format"` // 1
	ID        string    `json:"backup"` // 32 hexadecimal digits
	Ceremony  string    `json:"ceremony"`
	Plan      string    `json:"planSHA256"`
	Token     string    `json:"token"`
	Serial    string    `json:"serial"`
	Made      time.Time `json:"made"`
	Holders   int       `json:"shares"`
	Threshold int       `json:"threshold"`
	Rehearsal bool      `json:"rehearsal,omitempty"`
	Keys      []Key     `json:"keys"`
}

// Key is one wrapped key.
type Key struct {
	Label     id.KeyLabel `json:"label"`
	Role      string      `json:"role"` // as hsm.Role writes it
	Bits      int         `json:"bits"`
	ID        []byte      `json:"id"`        // CKA_ID
	Mechanism uint        `json:"mechanism"` // CKM that wrapped it
	Wrapped   []byte      `json:"wrapped"`
	// Certificate (DER) of a sign key.
	Certificate []byte `json:"certificate,omitempty"`
	// Check is what the key makes of a fixed text: both tokens must agree.
	Check []byte `json:"check,omitempty"`
}

const magic = "custode backup 1 "

var idForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Encode returns the file.
func (b Backup) Encode(s *Secret) ([]byte, error) {
	body, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		return nil, fault.New(fault.Internal, "encode backup", err)
	}
	return append(fmt.Appendf(nil, "%s%x\n", magic, s.mac(body)), body...), nil
}

func (s *Secret) mac(body []byte) []byte {
	h := hmac.New(sha256.New, s.derive("authenticate"))
	h.Write(body)
	return h.Sum(nil)
}

// Peek reads a backup file without proof that it is genuine: for what it wants of
// the custodians. fault.Invalid.
func Peek(file []byte) (Backup, error) {
	_, b, err := parse(file)
	return b, err
}

// Open reads a backup file and proves that it was made with the secret; else
// fault.Denied. fault.Invalid when it is no backup file.
func Open(file []byte, s *Secret) (Backup, error) {
	mac, b, err := parse(file)
	if err != nil {
		return Backup{}, err
	}
	_, body, _ := bytes.Cut(file, []byte("\n"))
	if !hmac.Equal(mac, s.mac(body)) {
		return Backup{}, fault.Newf(fault.Denied, "open backup "+b.ID, "these shares do not open it, or it was altered")
	}
	return b, nil
}

func parse(file []byte) ([]byte, Backup, error) {
	const op = "read backup"
	refuse := func(format string, args ...any) ([]byte, Backup, error) {
		return nil, Backup{}, fault.Newf(fault.Invalid, op, format, args...)
	}
	if len(file) > MaxBackup {
		return refuse("longer than %d octets", MaxBackup)
	}
	head, body, found := bytes.Cut(file, []byte("\n"))
	digits, ours := bytes.CutPrefix(head, []byte(magic))
	if !found || !ours || len(digits) != 64 {
		return refuse("it is no backup of this version")
	}
	mac, err := hex.DecodeString(string(digits))
	if err != nil {
		return refuse("the first line is damaged")
	}
	var b Backup
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return refuse("%w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return refuse("something follows the content")
	}
	if b.Format != 1 || !idForm.MatchString(b.ID) || b.Threshold < 2 || b.Threshold > b.Holders || b.Holders > MaxHolders || len(b.Keys) == 0 {
		return refuse("format, identifier or numbers are wrong")
	}
	for _, k := range b.Keys {
		if k.Label.IsZero() || len(k.Wrapped) == 0 {
			return refuse("a key has no label, or is empty")
		}
	}
	return mac, b, nil
}

// Share is one custodian's file.
type Share struct {
	Backup             string
	Number, Of, Needed int
	Custodian          string
	Value              [SecretLen]byte
}

// Split divides the secret among the custodians, in their order.
func Split(s *Secret, backup string, custodians []string, needed int, random io.Reader) ([]Share, error) {
	parts, err := shamir.Split(s[:], len(custodians), needed, random)
	if err != nil {
		return nil, err
	}
	out := make([]Share, len(parts))
	for i, p := range parts {
		out[i] = Share{Backup: backup, Number: int(p.X), Of: len(custodians), Needed: needed, Custodian: custodians[i]}
		copy(out[i].Value[:], p.Y)
		clear(p.Y)
	}
	return out, nil
}

// Encode returns the file; the caller clears it.
func (s Share) Encode() []byte {
	out := fmt.Appendf(make([]byte, 0, 512), "custode share 1\nbackup %s\nnumber %d of %d, %d needed\ncustodian %s\nvalue ", s.Backup, s.Number, s.Of, s.Needed, s.Custodian)
	out = hex.AppendEncode(out, s.Value[:])
	out = append(out, '\n')
	sum := sha256.Sum256(out)
	return fmt.Appendf(out, "checksum %x\n", sum[:8])
}

var (
	shareForm = regexp.MustCompile(`^custode share 1\nbackup ([0-9a-f]{32})\nnumber ([0-9]{1,2}) of ([0-9]{1,2}), ([0-9]{1,2}) needed\ncustodian ([a-z0-9.-]{1,32})\nvalue ([0-9a-f]{64})\nchecksum ([0-9a-f]{16})\n$`)
	nameForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,31}$`)
)

// ValidCustodian reports whether name can stand in a share: 1 to 32 of a-z 0-9 . -
func ValidCustodian(name string) bool { return nameForm.MatchString(name) }

// MaxShare bounds a share file, in octets.
const MaxShare = 512

// ParseShare reads a share file. A damaged one is fault.Invalid.
func ParseShare(file []byte) (Share, error) {
	const op = "read share"
	if len(file) > MaxShare {
		return Share{}, fault.Newf(fault.Invalid, op, "longer than %d octets", MaxShare)
	}
	m := shareForm.FindSubmatch(file)
	if m == nil {
		return Share{}, fault.Newf(fault.Invalid, op, "it is no share of this version, or damaged")
	}
	body := file[:bytes.LastIndex(file, []byte("checksum "))]
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:8]) != string(m[7]) {
		return Share{}, fault.Newf(fault.Invalid, op, "the checksum is wrong: a line was altered")
	}
	s := Share{Backup: string(m[1]), Custodian: string(m[5])}
	for i, to := range []*int{&s.Number, &s.Of, &s.Needed} {
		*to, _ = strconv.Atoi(string(m[2+i])) // two digits
	}
	if s.Number < 1 || s.Number > s.Of || s.Needed < 2 || s.Needed > s.Of || s.Of > MaxHolders {
		return Share{}, fault.Newf(fault.Invalid, op, "number %d of %d, %d needed, cannot be", s.Number, s.Of, s.Needed)
	}
	_, _ = hex.Decode(s.Value[:], m[6]) // the expression saw to it
	return s, nil
}

// Combine puts the secret of one backup together. Too few shares are fault.Denied,
// those of different backups fault.Invalid. Whether they are right is Open's to say.
func Combine(shares []Share) (*Secret, error) {
	const op = "combine shares"
	if len(shares) == 0 {
		return nil, fault.Newf(fault.Denied, op, "there is none")
	}
	var parts []shamir.Share
	for i := range shares {
		s := &shares[i]
		if s.Backup != shares[0].Backup || s.Needed != shares[0].Needed || s.Of != shares[0].Of {
			return nil, fault.Newf(fault.Invalid, op, "the share of %s is of backup %s, that of %s of backup %s", shares[0].Custodian, shares[0].Backup, s.Custodian, s.Backup)
		}
		parts = append(parts, shamir.Share{X: byte(s.Number), Y: s.Value[:]})
	}
	if len(shares) < shares[0].Needed {
		return nil, fault.Newf(fault.Denied, op, "%d of %d needed", len(shares), shares[0].Needed)
	}
	octets, err := shamir.Combine(parts)
	if err != nil {
		return nil, err
	}
	defer clear(octets)
	secret := Secret(octets)
	return &secret, nil
}
