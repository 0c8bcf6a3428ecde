package store

import (
	"encoding"
	"encoding/json"
	"strings"

	"custode/internal/fault"
)

// decode reads a JSON document of this program into v and checks its version,
// which *version (inside v) holds afterwards. Unknown keys are errors: a document
// of a newer program must not be read by halves.
func decode(document string, v any, version *int) error {
	d := json.NewDecoder(strings.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.New(fault.Internal, "decode document", err)
	}
	if *version != documentVersion {
		return fault.Newf(fault.Internal, "decode document", "version %d, not %d", *version, documentVersion)
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

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
