package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"

	"custode/internal/fault"
)

// Actor names the operator for the history: the login behind sudo, else the user.
func Actor() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// Decode reads an administrative argument strictly.
func Decode(arg []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(arg))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.Newf(fault.Invalid, "read the argument", "%w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fault.Newf(fault.Invalid, "read the argument", "something follows the JSON value")
	}
	return nil
}
