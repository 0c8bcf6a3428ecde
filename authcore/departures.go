package authcore

import (
	"sync"
	"time"

	"custode/internal/id"
)

const (
	departureLife = 30 * time.Second
	maxDepartures = 1024 // of some 15 KiB each; a node signs fewer in that time
)

// departures remembers for a moment with what each flow ended. A second click on
// the last button makes the browser drop the answer to the first and ask again,
// and it may do so when the first answer has left already: without this the
// Response, signed and recorded, would never arrive. The very same octets go out
// again; nothing is signed twice. Whoever asks was checked to be the flow's own
// browser. It is per process: after a restart, and on another node, a second
// click finds the flow answered.
type departures struct {
	mu     sync.Mutex
	byFlow map[id.FlowID]departure
	order  []id.FlowID // oldest first
}

type departure struct {
	out   Outcome
	until time.Time
}

// keep is called once per flow, by whoever finished it.
func (d *departures) keep(flow id.FlowID, out Outcome, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now, maxDepartures-1)
	d.byFlow[flow] = departure{out, now.Add(departureLife)}
	d.order = append(d.order, flow)
}

func (d *departures) recall(flow id.FlowID, now time.Time) (Outcome, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now, maxDepartures)
	gone, ok := d.byFlow[flow]
	return gone.out, ok
}

// forget drops what is over, and the oldest beyond most; d.mu is held.
func (d *departures) forget(now time.Time, most int) {
	for len(d.order) > 0 && (len(d.order) > most || !now.Before(d.byFlow[d.order[0]].until)) {
		delete(d.byFlow, d.order[0])
		d.order = d.order[1:]
	}
}
