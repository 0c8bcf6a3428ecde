package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"custode/internal/fault"
)

const (
	maxListing     = 256 << 20 // octets
	maxListedEntry = 4 << 20   // octets of one entry, with what is read ahead
)

// Listed is what the registry's listing says of a service provider. Nobody
// signs it: it can take a provider out of service, and is shown to operators,
// but nothing of it is believed at a login.
type Listed struct {
	EntityID         string `json:"entity_id"`
	OrganizationName string `json:"organization_name"`
	DisplayName      string `json:"organization_display_name"`
	Code             string `json:"code"`
	OrganizationType string `json:"organization_type"` // PA or PR
	FederationType   string `json:"federation_type"`   // SP or AG
	AggregatorCode   string `json:"aggregator_code"`
	AggregatorName   string `json:"aggregator_name"`
	Created          string `json:"create_date"`
	Updated          string `json:"lastupdate_date"`
	DeletedOn        string `json:"delete_date"`
	Disabled         yesNo  `json:"_disabled"`
	Deleted          yesNo  `json:"_deleted"`
}

// yesNo is the registry's "Y" or "N"; absent and null mean no.
type yesNo bool

// UnmarshalJSON refuses what it does not know: a flag that cannot be read must
// not mean "in service".
func (y *yesNo) UnmarshalJSON(b []byte) error {
	switch strings.ToUpper(string(b)) {
	case `"Y"`, `TRUE`:
		*y = true
	case `"N"`, `""`, `NULL`, `FALSE`:
		*y = false
	default:
		return errors.New("flag is neither Y nor N")
	}
	return nil
}

// eachListed reads the listing, a JSON array, one entry at a time.
func eachListed(r io.Reader, each func(Listed) error) error {
	const op = "read registry listing"
	budget := &budgetReader{r: r, left: maxListedEntry, total: maxListing}
	d := json.NewDecoder(budget)
	fail := func(err error) error {
		if budget.err != nil {
			return fault.New(fault.Unavailable, op, budget.err)
		}
		return fault.New(fault.Invalid, op, err)
	}
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return fail(fmt.Errorf("not a JSON array (%v)", err))
	}
	for n := 0; d.More(); n++ {
		if n == maxEntities {
			return fail(fmt.Errorf("more than %d entries", maxEntities))
		}
		budget.left = maxListedEntry
		var l Listed
		if err := d.Decode(&l); err != nil {
			return fail(err)
		}
		if err := each(l); err != nil {
			return err
		}
	}
	budget.left = maxListedEntry
	if t, err := d.Token(); err != nil || t != json.Delim(']') {
		return fail(fmt.Errorf("array without end (%v)", err))
	}
	if _, err := d.Token(); err != io.EOF {
		return fail(errors.New("something follows the array"))
	}
	return nil
}

// budgetReader bounds what one entry may make the decoder buffer.
type budgetReader struct {
	r           io.Reader
	left, total int64
	err         error // of r
}

func (b *budgetReader) Read(p []byte) (int, error) {
	if b.left <= 0 || b.total <= 0 {
		return 0, errors.New("listing or one of its entries is too large")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.total -= int64(n)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}
