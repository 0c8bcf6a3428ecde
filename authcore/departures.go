package authcore

import (
	"time"

	"custode/authcore/lanes"
	"custode/internal/id"
)

const (
	departureLife = 30 * time.Second
	maxDepartures = 1024 // of some 15 KiB each; a node signs fewer in that time
)

// departures remembers for a moment with what each flow ended. A second click on the last button makes the browser
// drop the answer to the first and ask again, maybe when that has left already: without this the Response, signed and
// recorded, would never arrive. The very same octets go out again, to the flow's own browser. It is per process.
type departures = lanes.Recent[id.FlowID, Outcome]

// Forget drops what was kept for a moment and is over.
func (l *Login) Forget() { l.gone.Sweep(l.now()) }
