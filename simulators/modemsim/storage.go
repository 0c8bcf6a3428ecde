package modemsim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"custode/simulators/modemsim/memory"
	"custode/simulators/modemsim/tpdu"
)

func (d *device) store(name string) *memory.Store { return memory.Find(d.areas, name) }

func (d *device) mem(n int) *memory.Area { return d.areas[d.set.mem[n-1]] }

func (d *device) cpms(arg string) ([]string, string) {
	n := d.p.CPMSMemories
	switch arg {
	case "=?":
		return []string{d.p.CPMS}, ""
	case "?":
		var f []string
		for i := range n {
			a := d.mem(i + 1)
			f = append(f, fmt.Sprintf(`"%s",%d,%d`, a.Name, a.Store.Used(), len(a.Store.Slots)))
		}
		return []string{"+CPMS: " + strings.Join(f, ",")}, ""
	}
	names := strings.Split(strings.TrimPrefix(arg, "="), ",")
	if len(names) > n {
		return nil, "+CMS ERROR: 303"
	}
	mem := d.set.mem
	for i, name := range names {
		at := slices.IndexFunc(d.areas, func(a *memory.Area) bool { return a.Name == strings.Trim(name, ` "`) })
		if at < 0 {
			return nil, "+CMS ERROR: 302"
		}
		mem[i] = at
	}
	d.set.mem = mem
	var f []string
	for i := range n {
		s := d.mem(i + 1).Store
		f = append(f, fmt.Sprintf("%d,%d", s.Used(), len(s.Slots)))
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
	for i, m := range d.mem(1).Store.Slots {
		if m == nil || m.Unreadable || want != 4 && m.Stat != want {
			continue
		}
		out = append(out, fmt.Sprintf("+CMGL: %d,%d,,%d\r\n%s", i+d.p.FirstIndex, m.Stat, len(m.TPDU)/2, tpdu.WithCentre(m.TPDU)))
		m.Read()
	}
	return out, ""
}

// slot finds the place an index names in mem1.
func (d *device) slot(index int) **memory.Message {
	s := d.mem(1).Store
	if i := index - d.p.FirstIndex; i >= 0 && i < len(s.Slots) {
		return &s.Slots[i]
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
	case at == nil || *at == nil && !d.p.ReadEmptyOK || *at != nil && (*at).Unreadable:
		return nil, "+CMS ERROR: 321"
	case *at == nil:
		return nil, ""
	}
	m := *at
	head := fmt.Sprintf(d.p.ReadFmt, m.Stat, len(m.TPDU)/2)
	m.Read()
	return []string{head + "\r\n" + tpdu.WithCentre(m.TPDU)}, ""
}

func (d *device) cmgd(arg string) ([]string, string) {
	if arg == "=?" {
		return []string{fmt.Sprintf("+CMGD: (%d-%d),(0-4)", d.p.FirstIndex, len(d.mem(1).Store.Slots)-1+d.p.FirstIndex)}, ""
	}
	v, ok := numbers(arg, 0, 0)
	if !ok || v[1] < 0 || v[1] > 4 {
		return nil, "+CMS ERROR: 304"
	}
	if v[1] > 0 {
		d.mem(1).Store.Purge(v[1])
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
	i := d.mem(2).Store.Put(&memory.Message{Stat: 2, TPDU: strings.ToUpper(m.Hex)})
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
			for a.Name != "SR" && a.Store.Put(&memory.Message{Stat: 1, TPDU: old}) >= 0 {
			}
		}
	})
}

// EmptySIM frees every slot of modem i.
func (b *Bank) EmptySIM(i int) {
	b.with(i, func(d *device) {
		for _, a := range d.areas {
			clear(a.Store.Slots)
		}
		d.later(time.Microsecond, d.pump)
	})
}

// Stored counts the messages in an area of modem i.
func (b *Bank) Stored(i int, area string) (n int) {
	b.with(i, func(d *device) {
		if s := d.store(area); s != nil {
			n = s.Used()
		}
	})
	return n
}
