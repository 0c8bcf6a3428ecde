package bay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"custode/modem/at"
	"custode/modem/pdu"
)

// stored names a message in the modem's storage.
type stored struct {
	store string
	index int
}

const (
	todoRoom   = 64
	unkeptRoom = 32
	seenRoom   = 64
	slowList   = 2 * time.Second // a list that takes so long is asked for rarely

	// A card with 255 full places is emptied at once; nobody writes more than that to
	// us. What a mad or hostile modem invents must not fill the owner's disk.
	floodRoom = 300
	floodSpan = 10 * time.Minute
)

// inbox is what is to be fetched from the modem, and what was fetched.
type inbox struct {
	store  string // storage that CMGR, CMGL and CMGD work on now
	home   string // the one it should be
	todo   []stored
	look   bool // list everything
	next   time.Time
	every  time.Duration
	unkept []string   // PDUs of direct messages that nobody took yet
	seen   [][32]byte // what was kept but could not be deleted, or is stored twice
	given  int        // messages given to the owner since began
	began  time.Time
	acks   int // +CMT and +CDS to acknowledge (CSMS 1)
}

// full reports that the owner got enough messages for now.
func (i *inbox) full(now time.Time) bool {
	if now.Sub(i.began) >= floodSpan {
		i.began, i.given = now, 0
	}
	return i.given >= floodRoom
}

// announced notes +CMTI and +CDSI.
func (b *Bay) announced(line string) {
	store, index, ok := at.Stored(line)
	report := strings.HasPrefix(line, "+CDSI:")
	if report && b.profile.ReportStore != "" {
		store = b.profile.ReportStore // whatever it says
	}
	s := stored{store, index}
	switch {
	case !ok, !report && index < b.profile.StorageBase, len(b.inbox.todo) >= todoRoom:
		b.inbox.look = true
	case !slices.Contains(b.inbox.todo, s):
		b.inbox.todo = append(b.inbox.todo, s)
	}
}

// chores does one thing that can wait, if there is one, and reports that it did.
// A message to send goes first.
func (b *Bay) chores(ctx context.Context) (bool, error) {
	i := &b.inbox
	switch {
	case i.acks > 0:
		i.acks--
		_, _, err := b.try(ctx, at.Command{Text: "AT+CNMA", Timeout: 5 * time.Second})
		return true, err
	case len(i.todo) > 0:
		s := i.todo[0]
		i.todo = i.todo[1:]
		return true, b.fetch(ctx, s)
	case i.look || !i.next.IsZero() && !b.cfg.Now().Before(i.next):
		i.look = false
		b.admit(false) // a list may take two minutes (A7600E): messages are better off elsewhere; serve opens again
		return true, b.empty(ctx)
	}
	return false, nil
}

// use selects the storage to read from.
func (b *Bay) use(ctx context.Context, store string) (bool, error) {
	if store == b.inbox.store {
		return true, nil
	}
	_, ok, err := b.try(ctx, at.Command{Text: `AT+CPMS="` + store + `"`, Prefix: "+CPMS:", Timeout: 10 * time.Second})
	if ok {
		b.inbox.store = store
	}
	return ok, err
}

// fetch reads one stored message, gives it away and deletes it.
func (b *Bay) fetch(ctx context.Context, s stored) error {
	ok, err := b.use(ctx, s.store)
	if err != nil || !ok {
		return err
	}
	// The answer's second line is bare: the PDU.
	r, ok, err := b.try(ctx, at.Command{Text: fmt.Sprintf("AT+CMGR=%d", s.index), Prefix: "+CMGR:", Bare: true, Timeout: 20 * time.Second})
	if err != nil {
		return err
	}
	if ok {
		// An empty OK means that the place is free (also SIM7600, EC25 after a mix-up).
		for i, l := range r.Lines {
			if i > 0 && strings.HasPrefix(r.Lines[i-1], "+CMGR:") && b.incoming(l) {
				if err := b.remove(ctx, s.index); err != nil {
					return err
				}
			}
		}
	}
	return b.goHome(ctx)
}

// goHome selects the usual storage again, where +CMTI and lists belong.
func (b *Bay) goHome(ctx context.Context) error {
	if b.inbox.home == "" || len(b.inbox.todo) > 0 && b.inbox.todo[0].store == b.inbox.store {
		return nil
	}
	_, err := b.use(ctx, b.inbox.home)
	return err
}

func (b *Bay) remove(ctx context.Context, index int) error {
	_, _, err := b.try(ctx, at.Command{Text: fmt.Sprintf("AT+CMGD=%d", index), Timeout: 20 * time.Second})
	return err
}

// empty lists everything stored, gives it away and deletes what was taken.
func (b *Bay) empty(ctx context.Context) error {
	stores := []string{b.inbox.home}
	if b.profile.ReportStore != "" && b.profile.Reports == "stored" {
		stores = append(stores, b.profile.ReportStore)
	}
	began := time.Now()
	for _, store := range stores {
		if store == "" {
			continue
		}
		ok, err := b.use(ctx, store)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := b.list(ctx); err != nil {
			return err
		}
	}
	b.inbox.every = b.cfg.Timing.Inbox
	if time.Since(began) > slowList {
		b.inbox.every *= 12 // A7600E: a list may take two minutes
	}
	b.inbox.next = b.cfg.Now().Add(b.inbox.every)
	if err := b.goHome(ctx); err != nil {
		return err
	}
	return b.fill(ctx)
}

// list reads and clears the selected storage.
func (b *Bay) list(ctx context.Context) error {
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CMGL=4", Prefix: "+CMGL:", Bare: true, Timeout: b.profile.ListTimeout})
	if err != nil || !ok {
		return err
	}
	for i := 0; i+1 < len(r.Lines); i++ {
		head := at.Fields(r.Lines[i], "+CMGL:")
		if !strings.HasPrefix(r.Lines[i], "+CMGL:") || len(head) < 2 || strings.Trim(head[0], "0123456789") != "" || head[0] == "" {
			continue
		}
		if strings.HasPrefix(r.Lines[i+1], "+CMGL:") || !b.incoming(r.Lines[i+1]) {
			continue
		}
		if err := b.remove(ctx, atoi(head[0])); err != nil {
			return err
		}
	}
	return nil
}

// fill looks how full the storage is; from four fifths on nothing that arrives is
// safe: what nobody takes is deleted, too.
func (b *Bay) fill(ctx context.Context) error {
	r, ok, err := b.try(ctx, at.Command{Text: "AT+CPMS?", Prefix: "+CPMS:", Timeout: 10 * time.Second})
	if err != nil || !ok || len(r.Lines) == 0 {
		return err
	}
	f := at.Fields(r.Lines[0], "+CPMS:")
	for i := 0; i+2 < len(f); i += 3 {
		used, total := atoi(f[i+1]), atoi(f[i+2])
		if !strings.EqualFold(f[i], b.inbox.home) || total <= 0 {
			continue
		}
		b.update(func(st *Status) { st.Stored, st.StoreSize = used, total })
		if used*5 >= total*4 {
			b.alarm(StorageFull, fmt.Sprintf("%d of %d places of %s are taken", used, total, b.inbox.home))
			_, err := b.first(ctx, 20*time.Second, "AT+CMGD=1,1", "AT+CMGD=0,1") // those already read
			return err
		}
		return nil
	}
	return nil
}

// incoming handles one PDU and reports that the modem may forget it: it was taken,
// or nobody ever will.
func (b *Bay) incoming(text string) bool {
	in, err := pdu.DecodeIncoming(text)
	switch {
	case err != nil:
		b.update(func(st *Status) { st.Unmatched++ })
		return true // a sent one, a draft, or garbage
	case in.Report != nil:
		b.report(*in.Report)
		return true
	}
	d := in.Deliver
	if d.Silent() || d.Text == "" {
		return true
	}
	// The same message may lie in SM and ME, or come again because CMGD failed.
	mark := sha256.Sum256([]byte(b.identity.imsi + " " + text))
	if slices.Contains(b.inbox.seen, mark) {
		return true
	}
	if b.inbox.full(b.cfg.Now()) {
		b.alarm(StorageFull, "more messages come in than anybody writes")
		return false
	}
	n := &Incoming{Mark: hex.EncodeToString(mark[:]), From: d.From.Digits, At: d.At, Text: d.Text, Part: 1, Total: 1, Stop: pdu.IsStop(d.Text)}
	if c := d.Concat; c != nil {
		n.Ref, n.Part, n.Total = c.Ref, int(c.Part), int(c.Total)
	}
	if !b.tell(News{Kind: Received, Incoming: n}) {
		return false
	}
	b.inbox.given++
	if len(b.inbox.seen) >= seenRoom {
		b.inbox.seen = b.inbox.seen[:copy(b.inbox.seen, b.inbox.seen[1:])]
	}
	b.inbox.seen = append(b.inbox.seen, mark)
	b.update(func(st *Status) { st.Received++ })
	return true
}

// direct handles a PDU that the modem does not keep (+CMT, +CDS).
func (b *Bay) direct(text string) {
	if b.incoming(text) {
		if b.csms == 1 {
			b.inbox.acks = min(b.inbox.acks+1, todoRoom)
		}
		return
	}
	if len(b.inbox.unkept) < unkeptRoom {
		b.inbox.unkept = append(b.inbox.unkept, text)
	}
}

// offerAgain gives away what nobody took.
func (b *Bay) offerAgain() {
	old := b.inbox.unkept
	b.inbox.unkept = nil
	for _, text := range old {
		b.direct(text)
	}
}
