package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"runtime/metrics"
	"time"

	"custode/authcore/saml"
	"custode/authcore/saml/xmldoc"
	"custode/internal/fault"
	"custode/internal/id"
)

// Status is what operators read of a replica.
type Status struct {
	Source      string     `json:"source"`
	Usable      bool       `json:"usable"`
	Trouble     string     `json:"trouble,omitempty"` // why not usable, or that the copy is old
	LastSuccess *time.Time `json:"lastSuccess,omitempty"`
	Age         string     `json:"age,omitempty"` // of the last success
	LastAttempt *time.Time `json:"lastAttempt,omitempty"`
	LastError   string     `json:"lastError,omitempty"`
	LastTook    string     `json:"lastTook,omitempty"`
	Attempts    int        `json:"attempts"`
	Refreshing  bool       `json:"refreshing"`
	NextRefresh *time.Time `json:"nextRefresh,omitempty"`
	ValidUntil  *time.Time `json:"validUntil,omitempty"` // of the aggregate

	Entities   int      `json:"entities"` // in the aggregate, by entityID
	Live       int      `json:"live"`     // that a login may come from
	Disabled   int      `json:"disabled"`
	Deleted    int      `json:"deleted"`
	Broken     int      `json:"broken"`
	Inspected  bool     `json:"inspected"` // whether broken ones are known
	Repeated   int      `json:"repeated"`  // given more than once with the same octets
	ListedOnly int      `json:"listedOnly"`
	BrokenList []Broken `json:"brokenList,omitempty"` // the first 200

	Memory       Memory   `json:"memory"`
	Certificates []Pinned `json:"certificates,omitempty"`
}

// Memory is in octets, but for Cached.
type Memory struct {
	Index  int64 `json:"index"`  // estimate
	Cached int   `json:"cached"` // parsed service providers
	Copy   int64 `json:"copy"`   // on disk
	Heap   int64 `json:"heap"`   // live objects of the whole process
}

// Pinned is a certificate that may sign the aggregate.
type Pinned struct {
	Subject string    `json:"subject"`
	Ends    time.Time `json:"ends"`
	Usable  bool      `json:"usable"`
}

// Status returns the present state.
func (f *Federation) Status() Status {
	now := f.c.Now()
	st := Status{Source: f.c.Source.String()}
	if err := f.Usable(); err != nil {
		st.Trouble = err.Error()
	} else {
		st.Usable = true
		if _, old := f.stale(now); old {
			st.Trouble = "the copy is old"
		}
	}
	f.mu.Lock()
	p := f.progress
	f.mu.Unlock()
	st.LastSuccess, st.LastAttempt, st.NextRefresh = moment(p.lastSuccess), moment(p.lastAttempt), moment(p.next)
	if st.LastSuccess != nil {
		st.Age = now.Sub(p.lastSuccess).Round(time.Second).String()
	}
	if p.took > 0 {
		st.LastTook = p.took.Round(time.Millisecond).String()
	}
	st.LastError, st.Attempts, st.Refreshing = p.lastError, p.attempts, p.refreshing || len(f.requests) > 0
	for _, cert := range f.c.Pinned {
		st.Certificates = append(st.Certificates, pinnedStatus(cert, now))
	}
	st.Memory = Memory{Cached: f.cache.len(), Heap: heap()}
	if s := f.current.Load(); s != nil {
		s.describe(&st)
	}
	return st
}

func (s *federationSnapshot) describe(st *Status) {
	n := s.standings()
	st.Entities, st.Live, st.Disabled, st.Deleted, st.Broken = len(s.entities), n[live], n[disabled], n[deleted], n[broken]
	st.Repeated, st.ListedOnly, st.ValidUntil = s.duplicates, s.listedOnly, moment(s.validUntil)
	st.Memory.Index = s.memory()
	if info, err := s.file.Stat(); err == nil {
		st.Memory.Copy = info.Size()
	}
	if in := s.inspection.Load(); in != nil {
		st.Inspected, st.Broken, st.BrokenList = true, in.broken, in.list
	}
}

func pinnedStatus(cert *x509.Certificate, now time.Time) Pinned {
	return Pinned{Subject: printable(cert.Subject.String()), Ends: cert.NotAfter, Usable: xmldoc.Usable(cert, now) == nil}
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func heap() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(sample[0].Value.Uint64())
}

// Details is one service provider as operators read it.
type Details struct {
	EntityID     string            `json:"entityID"`
	Standing     string            `json:"standing"` // live, broken, disabled or deleted
	Reason       string            `json:"reason,omitempty"`
	Names        map[string]string `json:"names,omitempty"` // OrganizationDisplayName, by language
	ACS          []saml.ACS        `json:"acs,omitempty"`
	Services     []ServiceDetails  `json:"services,omitempty"`
	Certificates []Pinned          `json:"certificates,omitempty"`
	ValidUntil   *time.Time        `json:"validUntil,omitempty"`
	Octets       int               `json:"octets,omitempty"`
	Listing      *Listed           `json:"listing,omitempty"` // unsigned
}

// ServiceDetails is an AttributeConsumingService.
type ServiceDetails struct {
	Index      uint16            `json:"index"`
	Name       map[string]string `json:"name"`
	Attributes []string          `json:"attributes"`
}

// Show describes the service provider of that entityID; fault.NotFound when
// neither the aggregate nor the listing has it.
func (f *Federation) Show(ctx context.Context, entityID string) (*Details, error) {
	const op = "show service provider"
	s := f.current.Load()
	if s == nil {
		return nil, fault.Newf(fault.Unavailable, op, "there is no registry copy")
	}
	if _, err := id.ParseEntityID(entityID); err != nil {
		return nil, fault.New(fault.Invalid, op, err)
	}
	d := &Details{EntityID: printable(entityID)}
	listed, err := s.listed(ctx, entityID)
	if err != nil {
		return nil, err
	}
	d.Listing = listed
	e, ok := s.entities[entityID]
	if !ok && listed == nil {
		return nil, fault.Newf(fault.NotFound, op, "no entity %s", printable(entityID))
	}
	if !ok {
		d.Standing, d.Reason = "absent", "in the listing, but not in the aggregate"
		return d, nil
	}
	d.Standing, d.Octets = standingNames[e.standing], int(e.length)
	if in := s.inspection.Load(); in != nil && in.reasons[entityID] != "" {
		d.Standing, d.Reason = standingNames[broken], printable(in.reasons[entityID])
		return d, nil
	}
	sp, err := s.parse(entityID, e)
	if err != nil {
		d.Standing, d.Reason = standingNames[broken], printable(err.Error())
		return d, nil
	}
	d.describe(sp, f.c.Now())
	return d, nil
}

func (d *Details) describe(sp *saml.SP, now time.Time) {
	d.Names, d.ValidUntil = printableNames(sp.DisplayName), moment(sp.ValidUntil)
	for _, acs := range sp.ACS {
		acs.Location = printable(acs.Location)
		d.ACS = append(d.ACS, acs)
	}
	for _, s := range sp.Services {
		shown := ServiceDetails{Index: s.Index, Name: printableNames(s.Name)}
		for _, name := range s.Attributes {
			shown.Attributes = append(shown.Attributes, printable(name))
		}
		d.Services = append(d.Services, shown)
	}
	for _, cert := range sp.Certificates {
		d.Certificates = append(d.Certificates, pinnedStatus(cert, now))
	}
}

var errFound = errors.New("found")

// listed looks the entity up in the copy of the listing, nil for none.
func (s *federationSnapshot) listed(ctx context.Context, entityID string) (*Listed, error) {
	if s.foot.Listing == nil {
		return nil, nil
	}
	var found *Listed
	err := eachListed(untilDone{ctx, io.Reader(s.foot.Listing.section(s.file))}, func(l Listed) error {
		if l.EntityID != entityID {
			return nil
		}
		for _, text := range []*string{&l.EntityID, &l.OrganizationName, &l.DisplayName, &l.Code, &l.OrganizationType, &l.FederationType,
			&l.AggregatorCode, &l.AggregatorName, &l.Created, &l.Updated, &l.DeletedOn} {
			*text = printable(*text)
		}
		found = &l
		return errFound
	})
	if err != nil && err != errFound {
		return nil, err
	}
	return found, nil
}
