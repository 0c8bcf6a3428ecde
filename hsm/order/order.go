// Package order is dual control over key operations: an order says in a canonical
// text what is to be done, operators sign its digest with keys of their own, and the
// operation is refused without enough of them. Tokens that know a quorum do this
// better; most do not.
//
// Order, UTF-8, each line once and in this order; those without a value are left out,
// key lines repeat:
//
//	custode key order 1
//	operation: destroy
//	token: custode
//	plan: <64 hexadecimal digits: SHA-256 of the plan file>
//	backup: <64 hexadecimal digits: SHA-256 of the backup file>
//	key: custode/sign/2026-1
//	reason: retired since May
//	expires: 2026-11-23T10:00:00Z
//	nonce: <32 hexadecimal digits>
//
// Approval: JSON with the operator's name, the SHA-256 of the order's text, and a
// signature (Ed25519, or RSA PKCS #1 v1.5 with SHA-256) over
//
//	"custode key order approval 1" LF operator LF digest in hexadecimal LF
//
// Pure: files, clock and randomness are the caller's. It imports nothing of the
// token: who can reach the token's PIN needs no approval, so this protects from one
// operator's error or malice at the tool, not from root.
package order

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"custode/internal/fault"
	"custode/internal/id"
)

// Operation is what an order is for.
type Operation string

// The operations that want an order.
const (
	Run     Operation = "run"
	Import  Operation = "import"
	Restore Operation = "restore"
	Destroy Operation = "destroy"
	PIN     Operation = "pin"
	Early   Operation = "rollover-approve"
	Reseed  Operation = "reseed"
)

// Operations lists them.
func Operations() []Operation { return []Operation{Run, Import, Restore, Destroy, PIN, Early, Reseed} }

// Order is one key operation to be approved. Only Parse and New make one.
type Order struct {
	Operation Operation
	Token     string // label
	Plan      string // SHA-256 of the plan file, hexadecimal; "" for none
	Backup    string // SHA-256 of the backup file, likewise
	Keys      []id.KeyLabel
	Reason    string
	Expires   time.Time // whole seconds, UTC
	Nonce     string
}

// Limits of an order.
const (
	MaxText = 8 << 10 // octets
	maxKeys = 32
	maxLine = 300 // characters
	maxLife = 31 * 24 * time.Hour
)

const head = "custode key order 1\n"

// New draws the nonce and checks the order; fault.Invalid.
func New(o Order, now time.Time, random io.Reader) (Order, error) {
	var nonce [16]byte
	if _, err := io.ReadFull(random, nonce[:]); err != nil {
		return Order{}, fault.New(fault.Unavailable, "draw nonce", err)
	}
	o.Nonce = hex.EncodeToString(nonce[:])
	o.Expires = o.Expires.UTC().Truncate(time.Second)
	if !o.Expires.After(now) || o.Expires.After(now.Add(maxLife)) {
		return Order{}, fault.Newf(fault.Invalid, "write order", "it must be valid for up to %v", maxLife)
	}
	return Parse(o.Text())
}

// Text is the canonical form.
func (o Order) Text() []byte {
	b := bytes.NewBufferString(head)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(b, "%s: %s\n", name, value)
		}
	}
	line("operation", string(o.Operation))
	line("token", o.Token)
	line("plan", o.Plan)
	line("backup", o.Backup)
	for _, k := range o.Keys {
		line("key", k.String())
	}
	line("reason", o.Reason)
	line("expires", o.Expires.UTC().Format(time.RFC3339))
	line("nonce", o.Nonce)
	return b.Bytes()
}

// Digest is the SHA-256 of the text, in hexadecimal: what operators compare aloud.
func (o Order) Digest() string { return Digest(o.Text()) }

// Digest is the SHA-256 of a file, in hexadecimal.
func Digest(file []byte) string {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:])
}

var (
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nonceForm  = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// Parse accepts what Text writes and nothing else; fault.Invalid.
func Parse(text []byte) (Order, error) {
	const op = "read order"
	refuse := func(format string, args ...any) (Order, error) {
		return Order{}, fault.Newf(fault.Invalid, op, format, args...)
	}
	body, ours := bytes.CutPrefix(text, []byte(head))
	if len(text) > MaxText || !ours {
		return refuse("it is no order of this version, or longer than %d octets", MaxText)
	}
	var o Order
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok || len(value) > maxLine || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return refuse("a line is not name and printable value")
		}
		var err error
		switch name {
		case "operation":
			o.Operation = Operation(value)
		case "token":
			o.Token = value
		case "plan":
			o.Plan = value
		case "backup":
			o.Backup = value
		case "key":
			var k id.KeyLabel
			k, err = id.ParseKeyLabel(value)
			o.Keys = append(o.Keys, k)
		case "reason":
			o.Reason = value
		case "expires":
			o.Expires, err = time.Parse(time.RFC3339, value)
		case "nonce":
			o.Nonce = value
		default:
			return refuse("line %.40q is not known", name)
		}
		if err != nil {
			return refuse("%s: %w", name, err)
		}
	}
	switch {
	case !slices.Contains(Operations(), o.Operation):
		return refuse("operation %.40q is not known", string(o.Operation))
	case o.Token == "" || strings.TrimSpace(o.Reason) == "" || !nonceForm.MatchString(o.Nonce):
		return refuse("token, reason or nonce is missing")
	case len(o.Keys) > maxKeys:
		return refuse("more than %d keys", maxKeys)
	case (o.Operation == Run) != (o.Plan != "") || o.Plan != "" && !digestForm.MatchString(o.Plan):
		return refuse("operation run wants the digest of a plan, the others none")
	case (o.Operation == Restore) != (o.Backup != "") || o.Backup != "" && !digestForm.MatchString(o.Backup):
		return refuse("operation restore wants the digest of a backup, the others none")
	case slices.Contains([]Operation{Import, Destroy, Early}, o.Operation) != (len(o.Keys) > 0):
		return refuse("operation %s and the keys contradict one another", o.Operation)
	}
	if !bytes.Equal(o.Text(), text) {
		return refuse("it is not in its canonical form")
	}
	return o, nil
}

// approval is the file.
type approval struct {
	Format    int    `json:"format"` // 1
	Operator  string `json:"operator"`
	Order     string `json:"order"` // digest
	Algorithm string `json:"algorithm"`
	Signature []byte `json:"signature"`
}

const maxApproval = 4 << 10 // octets

var operatorForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,31}$`)

// ValidOperator reports whether name can be an operator's: 1 to 32 of a-z 0-9 . -
func ValidOperator(name string) bool { return operatorForm.MatchString(name) }

func signed(purpose, operator, digest string) []byte {
	return fmt.Appendf(nil, "custode %s 1\n%s\n%s\n", purpose, operator, digest)
}

const approving = "key order approval"

// Approve signs the order as operator and returns the file.
func Approve(o Order, operator string, key crypto.Signer, random io.Reader) ([]byte, error) {
	return sign(approving, o.Digest(), operator, key, random)
}

func sign(purpose, digest, operator string, key crypto.Signer, random io.Reader) ([]byte, error) {
	op := "sign " + purpose + " as " + operator
	a := approval{Format: 1, Operator: operator, Order: digest}
	message := signed(purpose, operator, a.Order)
	var err error
	switch public := key.Public().(type) {
	case ed25519.PublicKey:
		a.Algorithm = "ed25519"
		a.Signature, err = key.Sign(random, message, crypto.Hash(0))
	case *rsa.PublicKey:
		if public.Size() < 256 {
			return nil, fault.Newf(fault.Invalid, op, "an RSA key under 2048 bits")
		}
		a.Algorithm = "rsa-pkcs1-sha256"
		sum := sha256.Sum256(message)
		a.Signature, err = key.Sign(random, sum[:], crypto.SHA256)
	default:
		return nil, fault.Newf(fault.Invalid, op, "the key is neither Ed25519 nor RSA")
	}
	if err != nil || !ValidOperator(operator) {
		return nil, fault.Newf(fault.Invalid, op, "the name is not 1 to 32 of a-z 0-9 . -, or the key does not sign: %v", err)
	}
	return json.Marshal(a)
}

// Operator is one who may approve.
type Operator struct {
	Name string
	Key  crypto.PublicKey // ed25519.PublicKey or *rsa.PublicKey
}

// Check verifies that at least needed different operators approved the order and
// that it has not expired, and returns their names. An approval that does not verify is
// an error, not a missing one: fault.Denied.
func Check(o Order, approvals [][]byte, operators []Operator, needed int, now time.Time) ([]string, error) {
	op := "check approvals of order " + o.Digest()
	refuse := func(format string, args ...any) ([]string, error) {
		return nil, fault.Newf(fault.Denied, op, format, args...)
	}
	if !now.Before(o.Expires) {
		return refuse("it expired at %s", o.Expires.Format(time.RFC3339))
	}
	if o.Expires.After(now.Add(maxLife)) { // written by another tool than New
		return refuse("it is valid for more than %v", maxLife)
	}
	var names []string
	var keys [][]byte
	for _, file := range approvals {
		a, i, err := open(file, operators)
		switch {
		case err != nil:
			return refuse("%w", err)
		case slices.Contains(names, a.Operator):
			return refuse("%s approved twice", a.Operator)
		case a.Order != o.Digest():
			return refuse("%s approved another order, %.64s", a.Operator, a.Order)
		case !verify(approving, operators[i].Key, a):
			return refuse("the signature of %s is wrong", a.Operator)
		}
		// Two names of one key are one person.
		raw := fmt.Appendf(nil, "%T %v", operators[i].Key, operators[i].Key)
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, raw) }) {
			return refuse("%s has the key of another operator", a.Operator)
		}
		names, keys = append(names, a.Operator), append(keys, raw)
	}
	if len(names) < needed {
		return refuse("%d of %d approvals", len(names), needed)
	}
	return names, nil
}

// open reads a signature file and finds whose it says it is.
func open(file []byte, operators []Operator) (a approval, i int, err error) {
	if len(file) > maxApproval {
		return a, 0, fmt.Errorf("longer than %d octets", maxApproval)
	}
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil || a.Format != 1 {
		return a, 0, fmt.Errorf("not a signature of this version: %v", err)
	}
	i = slices.IndexFunc(operators, func(x Operator) bool { return x.Name == a.Operator })
	if i < 0 {
		return a, 0, fmt.Errorf("%.40q is no operator of the machine file", a.Operator)
	}
	return a, i, nil
}

func verify(purpose string, key crypto.PublicKey, a approval) bool {
	message := signed(purpose, a.Operator, a.Order)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return a.Algorithm == "ed25519" && ed25519.Verify(k, message, a.Signature)
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		return a.Algorithm == "rsa-pkcs1-sha256" && k.Size() >= 256 && rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], a.Signature) == nil
	}
	return false
}

// SignFile signs the digest of a file as operator: for reports, where no seal is.
func SignFile(file []byte, operator string, key crypto.Signer, random io.Reader) ([]byte, error) {
	return sign("file signature", Digest(file), operator, key, random)
}

// VerifyFile verifies what SignFile made and returns the operator; fault.Denied.
func VerifyFile(file, signature []byte, operators []Operator) (string, error) {
	const op = "verify signature of a file"
	a, i, err := open(signature, operators)
	if err != nil {
		return "", fault.New(fault.Denied, op, err)
	}
	if a.Order != Digest(file) || !verify("file signature", operators[i].Key, a) {
		return "", fault.Newf(fault.Denied, op, "%s signed another file, or the signature is wrong", a.Operator)
	}
	return a.Operator, nil
}
