package sqlite

import (
	"fmt"

	"custode/internal/fault"
)

// minSQLite is the first release without the race that resets a WAL under a
// checkpoint and damages the database (present up to 3.51.2).
var minSQLite = [3]int{3, 51, 3}

// CheckVersion refuses, with fault.Fatal, an SQLite that can damage a database.
func CheckVersion(version string) error {
	const op = "check SQLite"
	var got [3]int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &got[0], &got[1], &got[2]); err != nil {
		return fault.Newf(fault.Fatal, op, "version %q not understood", version)
	}
	for i, want := range minSQLite {
		if got[i] > want {
			return nil
		}
		if got[i] < want {
			return fault.Newf(fault.Fatal, op, "version %s can damage the database; want 3.51.3 or later", version)
		}
	}
	return nil
}
