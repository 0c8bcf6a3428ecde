// Package memory is where a simulated modem and its card keep messages: areas with
// names, some of which show the same slots. Only modemsim imports it.
package memory

import (
	"slices"

	"custode/simulators/modemsim/dialect"
)

// Area is a name for a store; aliases share one.
type Area struct {
	Name  string
	Store *Store
}

// Store is a number of slots, nil where free.
type Store struct{ Slots []*Message }

// Message is one message in memory. Stat is as +CMGL tells it: 0 unread, 1 read, 2
// unsent, 3 sent. TPDU is hexadecimal without service centre address.
type Message struct {
	Stat       int
	TPDU       string
	Unreadable bool
}

// Areas makes the stores of a profile.
func Areas(areas []dialect.Area) (out []*Area) {
	for _, a := range areas {
		s := Find(out, a.Alias)
		if s == nil {
			s = &Store{Slots: make([]*Message, a.Slots)}
		}
		out = append(out, &Area{a.Name, s})
	}
	return out
}

// Find returns the store of an area, nil when there is none of that name.
func Find(areas []*Area, name string) *Store {
	for _, a := range areas {
		if a.Name == name {
			return a.Store
		}
	}
	return nil
}

// Used counts the slots taken.
func (s *Store) Used() (n int) {
	for _, m := range s.Slots {
		if m != nil {
			n++
		}
	}
	return n
}

// Put stores a message and returns its place, or -1 when there is none.
func (s *Store) Put(m *Message) int {
	i := slices.Index(s.Slots, nil)
	if i >= 0 {
		s.Slots[i] = m
	}
	return i
}

// Purge is +CMGD with a flag: 1 read messages, 2 and sent ones, 3 and unsent ones,
// 4 everything.
func (s *Store) Purge(flag int) {
	gone := [][]int{nil, {1}, {1, 3}, {1, 2, 3}, {0, 1, 2, 3}}[flag]
	for i, m := range s.Slots {
		if m != nil && slices.Contains(gone, m.Stat) {
			s.Slots[i] = nil
		}
	}
}

// Read marks a message as read.
func (m *Message) Read() {
	if m.Stat == 0 {
		m.Stat = 1
	}
}
