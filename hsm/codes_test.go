package hsm

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"custode/internal/fault"
)

// RFC 4226, appendix D: the HMACs and the codes.
func TestIsCode(t *testing.T) {
	for counter, code := range strings.Fields("755224 287082 359152 969429 338314 254676 287922 162583 399871 520489") {
		m := hmac.New(sha1.New, []byte("12345678901234567890"))
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(counter)))
		mac := m.Sum(nil)
		for digit := range 1_000_000 / 997 {
			typed := fmt.Sprintf("%06d", digit*997)
			if got := IsCode(mac, typed); (got == 1) != (typed == code) {
				t.Errorf("counter %d: %s is %d", counter, typed, got)
			}
		}
		if IsCode(mac, code) != 1 {
			t.Errorf("counter %d: %s is not accepted", counter, code)
		}
	}
	// The example of section 5.4, with its leading digits.
	mac, err := hex.DecodeString("1f8698690e02ca16618550ef7f19da8e945b555a")
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]int{
		"872921": 1, "7872921": 1, "57872921": 1, "872922": 0, "0872921": 0, "87292": 0, "157872921": 0, "": 0, "87292a": 0,
	} {
		if got := IsCode(mac, code); got != want {
			t.Errorf("%q: %d, want %d", code, got, want)
		}
	}
	if IsCode(mac[:19], "872921") != 0 || IsCode(nil, "000000") != 0 {
		t.Error("a short HMAC has a value")
	}
	// The last offset reaches the last octet but one of the shortest HMAC.
	zero := make([]byte, 20)
	zero[19] = 0xf
	if IsCode(zero, "000015") != 0 || IsCode(zero, "000000") != 1 {
		t.Error("offset 15")
	}
}

func TestCodeQueryCheck(t *testing.T) {
	good := CodeQuery{
		KEK: mustLabel(t, "a/seed"), Wrap: MechanismAESKeyWrap, KeyType: KeyTypeGeneric, MAC: MechanismSHA1, Wrapped: make([]byte, 72),
		Binder: mustLabel(t, "a/mac"), Binding: make([]byte, 100), Digits: 6, Counters: []uint64{1}, Code: "123456",
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for mechanism, size := range map[uint32]int{MechanismSHA1: 20, MechanismSHA256: 32, MechanismSHA512: 64} {
		own := good
		own.MAC, own.KeyType = mechanism, KeyTypeOf(mechanism)
		if err := own.Check(); err != nil || HMACSize(mechanism) != size {
			t.Errorf("%#x: %v, %d octets", mechanism, err, HMACSize(mechanism))
		}
		if back, known := HMAC(own.KeyType); !known || back != mechanism {
			t.Errorf("%#x: %#x", mechanism, back)
		}
	}
	for name, change := range map[string]func(*CodeQuery){
		"wrapped short": func(q *CodeQuery) { q.Wrapped = q.Wrapped[:MinSecret-1] },
		"wrapped long":  func(q *CodeQuery) { q.Wrapped = make([]byte, maxWrapped+1); q.Binding = q.Wrapped },
		"binding long":  func(q *CodeQuery) { q.Binding = make([]byte, MaxMACInput+1) },
		"binding":       func(q *CodeQuery) { q.Binding = append(make([]byte, 100), 1) },
		"digits":        func(q *CodeQuery) { q.Digits = 7 },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, known := HMAC(0x1f); known || KeyTypeOf(0x1) != 0 || HMACSize(0x1) != 0 {
		t.Error("what is not known is")
	}
}
