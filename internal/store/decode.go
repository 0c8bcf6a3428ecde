package store

import (
	"encoding"
	"encoding/json"
	"strings"

	"custode/internal/fault"
	"custode/internal/store/veil"
)

// decode reads a JSON document of this program into v and checks its version,
// which *version (inside v) holds afterwards: it must be want. Unknown keys are errors: a document
// of a newer program must not be read by halves.
func decode(document string, v any, version *int, want int) error {
	d := json.NewDecoder(strings.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.New(fault.Internal, "decode document", err)
	}
	if *version != want {
		return fault.Newf(fault.Internal, "decode document", "version %d, not %d", *version, want)
	}
	return nil
}

// field is a stored text and the identifier it must parse into.
type field struct {
	into encoding.TextUnmarshaler
	text string
}

// parseAll parses stored identifiers: what somebody put into the file by other
// means must not pass for a parsed value.
func parseAll(fields ...field) error {
	for _, f := range fields {
		if err := f.into.UnmarshalText([]byte(f.text)); err != nil {
			return err
		}
	}
	return nil
}

// hideText puts a text in a box.
func (db *DB) hideText(c veil.Column, row, text string) []byte {
	return db.ring.Hide(c, row, []byte(text))
}

// blind names a text.
func (db *DB) blind(c veil.Column, text string) []byte { return db.ring.Blind(c, []byte(text)) }

// shown is a box and where its content goes.
type shown struct {
	into   *string
	column veil.Column
	box    []byte
}

// showAll opens boxes of one row.
func (db *DB) showAll(row string, boxes ...shown) error {
	for _, b := range boxes {
		plain, err := db.ring.Show(b.column, row, b.box)
		if err != nil {
			return err
		}
		*b.into = string(plain)
		clear(plain)
	}
	return nil
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
