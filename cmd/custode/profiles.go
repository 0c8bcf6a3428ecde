package main

import (
	"io"
	"os"

	"custode/internal/fault"
	"custode/modem/profile"
)

// readProfiles returns the built-in modem profiles, changed by an operator's file
// ("" for none).
func readProfiles(path string) (*profile.Set, error) {
	if path == "" {
		return profile.Parse("built in", nil)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read modem profiles", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read modem profiles "+path, err)
	}
	return profile.Parse(path, data)
}
