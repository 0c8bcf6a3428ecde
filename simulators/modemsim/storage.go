package modemsim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"custode/simulators/modemsim/dialect"
	"custode/simulators/modemsim/tpdu"
)

// area is a name for a store; aliases share one.
type area struct {
	name  string
	store *store
}

type store struct{ slots []*stored }

// stored is one message in memory. stat as +CMGL tells it: 0 unread, 1 read, 2
// unsent, 3 sent.
type stored struct {
	stat       int
	tpdu       string
	unreadable bool
}

func newAreas(p dialect.Profile) (out []*area) {
	for _, a := range p.Areas {
		s := &store{slots: make([]*stored, a.Slots)}
		for _, o := range out {
			if o.name == a.Alias {
				s = o.store
			}
		}
		out = append(out, &area{a.Name, s})
	}
	return out
}

func (d *device) store(name string) *store {
	for _, a := range d.areas {
		if a.name == name {
			return a.store
		}
	}
	return nil
}

// firstAreas is what +CPMS holds after a start: the first area, three times.
func (d *device) firstAreas() [3]int { return [3]int{} }

func (d *device) mem(n int) *area { return d.areas[d.set.mem[n-1]] }

func (s *store) used() (n int) {
	for _, m := range s.slots {
		if m != nil {
			n++
		}
	}
	return n
}

// put stores a message and returns its place, or -1 when there is none.
func (s *store) put(m *stored) int {
	i := slices.Index(s.slots, nil)
	if i >= 0 {
		s.slots[i] = m
	}
	return i
}

func (d *device) cpms(arg string) ([]string, string) {
	n := d.p.CPMSMemories
	switch arg {
	case "=?":
		return []string{d.p.CPMS}, ""
	case "?":
		var f []string
		for i := range n {
			a := d.mem(i + 1)
			f = append(f, fmt.Sprintf(`"%s",%d,%d`, a.name, a.store.used(), len(a.store.slots)))
		}
		return []string{"+CPMS: " + strings.Join(f, ",")}, ""
	}
	names := strings.Split(strings.TrimPrefix(arg, "="), ",")
	if len(names) > n {
		return nil, "+CMS ERROR: 303"
	}
	mem := d.set.mem
	for i, name := range names {
		at := slices.IndexFunc(d.areas, func(a *area) bool { return a.name == strings.Trim(name, ` "`) })
		if at < 0 {
			return nil, "+CMS ERROR: 302"
		}
		mem[i] = at
	}
	d.set.mem = mem
	var f []string
	for i := range n {
		s := d.mem(i + 1).store
		f = append(f, fmt.Sprintf("%d,%d", s.used(), len(s.slots)))
	}
	return []string{"+CPMS: " + strings.Join(f, ",")}, ""
}

func (d *device) cmgl(arg string) ([]string, string) {
	want := 0
	switch n, ok := number1(arg); {
	case arg == "=?":
		return []string{"+CMGL: (0-4)"}, ""
	case ok && n >= 0 && n <= 4:
		want = n
	case arg != "":
		return nil, "+CMS ERROR: 304"
	}
	var out []string
	for i, m := range d.mem(1).store.slots {
		if m == nil || m.unreadable || want != 4 && m.stat != want {
			continue
		}
		out = append(out, fmt.Sprintf("+CMGL: %d,%d,,%d\r\n%s", i+d.p.FirstIndex, m.stat, len(m.tpdu)/2, tpdu.WithCentre(m.tpdu)))
		m.stat = read(m.stat)
	}
	return out, ""
}

func read(stat int) int {
	if stat == 0 {
		return 1
	}
	return stat
}

// slot finds the place an index names in mem1.
func (d *device) slot(index int) **stored {
	s := d.mem(1).store
	if i := index - d.p.FirstIndex; i >= 0 && i < len(s.slots) {
		return &s.slots[i]
	}
	return nil
}

func (d *device) cmgr(arg string) ([]string, string) {
	n, ok := number1(arg)
	if !ok {
		return nil, "+CMS ERROR: 304"
	}
	at := d.slot(n)
	switch {
	case at == nil || *at == nil && !d.p.ReadEmptyOK || *at != nil && (*at).unreadable:
		return nil, "+CMS ERROR: 321"
	case *at == nil:
		return nil, ""
	}
	m := *at
	head := fmt.Sprintf(d.p.ReadFmt, m.stat, len(m.tpdu)/2)
	m.stat = read(m.stat)
	return []string{head + "\r\n" + tpdu.WithCentre(m.tpdu)}, ""
}

func (d *device) cmgd(arg string) ([]string, string) {
	if arg == "=?" {
		return []string{fmt.Sprintf("+CMGD: (%d-%d),(0-4)", d.p.FirstIndex, len(d.mem(1).store.slots)-1+d.p.FirstIndex)}, ""
	}
	v, ok := numbers(arg, 0, 0)
	if !ok || v[1] < 0 || v[1] > 4 {
		return nil, "+CMS ERROR: 304"
	}
	if v[1] > 0 {
		// Flags: 1 read, 2 and sent, 3 and unsent, 4 everything.
		gone := [][]int{nil, {1}, {1, 3}, {1, 2, 3}, {0, 1, 2, 3}}[v[1]]
		slots := d.mem(1).store.slots
		for i, m := range slots {
			if m != nil && slices.Contains(gone, m.stat) {
				slots[i] = nil
			}
		}
	} else {
		at := d.slot(v[0])
		if at == nil {
			return nil, "+CMS ERROR: 321"
		}
		*at = nil
	}
	d.later(time.Microsecond, d.pump) // what waited for room comes now
	return nil, ""
}

// keep ends AT+CMGW.
func (d *device) keep(m tpdu.Submit) {
	i := d.mem(2).store.put(&stored{stat: 2, tpdu: strings.ToUpper(m.Hex)})
	if i < 0 {
		d.say("+CMS ERROR: 322")
		return
	}
	d.say(fmt.Sprintf("+CMGW: %d", i+d.p.FirstIndex), "OK")
}

// FillSIM takes every free slot of modem i, but those for reports.
func (b *Bank) FillSIM(i int) {
	b.with(i, func(d *device) {
		old := tpdu.Deliver("+393000000000", "vecchio", 0, time.Now())[0]
		for _, a := range d.areas {
			for a.name != "SR" && a.store.put(&stored{stat: 1, tpdu: old}) >= 0 {
			}
		}
	})
}

// EmptySIM frees every slot of modem i.
func (b *Bank) EmptySIM(i int) {
	b.with(i, func(d *device) {
		for _, a := range d.areas {
			clear(a.store.slots)
		}
		d.later(time.Microsecond, d.pump)
	})
}

// Stored counts the messages in an area of modem i.
func (b *Bank) Stored(i int, area string) (n int) {
	b.with(i, func(d *device) {
		if s := d.store(area); s != nil {
			n = s.used()
		}
	})
	return n
}
