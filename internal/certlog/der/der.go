// Package der refuses, before a CMS library sees it, whatever is not one whole
// element in DER (X.690, section 10): the libraries also read BER, and their BER
// readers fail on hostile input with a panic. Only internal/certlog needs it.
package der

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxDepth is above what certificates inside tokens inside signatures need.
const maxDepth = 48

var errForm = errors.New("not one element in DER")

// Check reports an error unless b is exactly one DER element, down to the last
// constructed one.
func Check(b []byte) error {
	s := cryptobyte.String(b)
	if !walk(&s, 0) || !s.Empty() {
		return errForm
	}
	return nil
}

func walk(s *cryptobyte.String, depth int) bool {
	const constructed = 0x20
	var inside cryptobyte.String
	var tag asn1.Tag
	if depth > maxDepth || !s.ReadAnyASN1(&inside, &tag) {
		return false
	}
	if tag&constructed == 0 {
		return true
	}
	for !inside.Empty() {
		if !walk(&inside, depth+1) {
			return false
		}
	}
	return true
}
