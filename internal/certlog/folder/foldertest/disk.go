// Package foldertest is a folder as an unkind kernel and disk treat it, for the
// tests of whoever writes files that must survive. It is in memory and seeded.
package foldertest

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"

	"custode/internal/certlog/folder"
)

// Disk is a folder of which what was not synced
// may be lost or torn when the power goes, an fsync that failed loses its pages
// for good though they can still be read, and any call can fail or be the last.
type Disk struct {
	rnd     *rand.Rand
	Entries map[string]*Inode // as seen now
	durable map[string]*Inode // after a power loss, if no change since survives
	changes []func(map[string]*Inode)
	Calls   int
	FailAt  map[int]bool // these Calls fail, once
	CrashAt int          // from this call on nothing works; 0: never
}

var (
	errDisk  = errors.New("input/output error")
	errPower = errors.New("the power is gone")
)

// Inode is a file.
type Inode struct {
	Data []byte // as seen now
	safe int    // octets that survive a power loss
	lost int    // octets whose fsync failed: seen, never safe
}

// NewDisk makes an empty one.
func NewDisk(seed uint64) *Disk {
	return &Disk{rnd: rand.New(rand.NewPCG(seed, 1)), Entries: map[string]*Inode{}, durable: map[string]*Inode{}, FailAt: map[int]bool{}}
}

func (d *Disk) step() error {
	d.Calls++
	if d.CrashAt > 0 && d.Calls >= d.CrashAt {
		return errPower
	}
	if d.FailAt[d.Calls] {
		return errDisk
	}
	return nil
}

// Reboot returns the folder after the power came back.
func (d *Disk) Reboot() *Disk {
	n := NewDisk(d.rnd.Uint64())
	n.durable = maps.Clone(d.durable)
	for _, change := range d.changes {
		if d.rnd.IntN(2) == 0 {
			change(n.durable)
		}
	}
	done := map[*Inode]*Inode{}
	for name, i := range n.durable {
		if done[i] == nil {
			keep := i.safe
			if i.lost == 0 && len(i.Data) > keep {
				keep += d.rnd.IntN(len(i.Data) - keep + 1)
			}
			data := slices.Clone(i.Data[:keep])
			if keep > i.safe && d.rnd.IntN(3) == 0 {
				for k := i.safe + d.rnd.IntN(keep-i.safe); k < keep; k++ {
					data[k] = 0 // the length reached the disk, the block did not
				}
			}
			done[i] = &Inode{Data: data, safe: keep}
		}
		n.durable[name] = done[i]
	}
	n.Entries = maps.Clone(n.durable)
	return n
}

func (d *Disk) change(f func(map[string]*Inode)) {
	f(d.Entries)
	d.changes = append(d.changes, f)
}

func (d *Disk) List() (map[string]int64, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for name, i := range d.Entries {
		out[name] = int64(len(i.Data))
	}
	return out, nil
}

func (d *Disk) Open(name string) (folder.File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	i := d.Entries[name]
	if i == nil {
		return nil, os.ErrNotExist
	}
	return &handle{d, i}, nil
}

func (d *Disk) Create(name string) (folder.File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	if d.Entries[name] != nil {
		return nil, os.ErrExist
	}
	i := &Inode{}
	d.change(func(m map[string]*Inode) { m[name] = i })
	return &handle{d, i}, nil
}

func (d *Disk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	i := d.Entries[from]
	if i == nil {
		return os.ErrNotExist
	}
	d.change(func(m map[string]*Inode) {
		if m[from] == i {
			m[to] = i
			delete(m, from)
		}
	})
	return nil
}

func (d *Disk) Remove(name string) error {
	if d.Entries[name] == nil {
		return os.ErrNotExist
	}
	if err := d.step(); err != nil {
		return err
	}
	d.change(func(m map[string]*Inode) { delete(m, name) })
	return nil
}

func (d *Disk) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	d.durable, d.changes = maps.Clone(d.Entries), nil
	return nil
}

type handle struct {
	d *Disk
	i *Inode
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.d.step(); err != nil {
		return 0, err
	}
	if off >= int64(len(h.i.Data)) {
		return 0, io.EOF
	}
	n := copy(p, h.i.Data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	if err := h.d.step(); err != nil {
		n := h.d.rnd.IntN(len(p) + 1) // a part may have been written
		h.i.Data = append(h.i.Data, p[:n]...)
		return n, err
	}
	h.i.Data = append(h.i.Data, p...)
	return len(p), nil
}

func (h *handle) Sync() error {
	if err := h.d.step(); err != nil {
		h.i.lost = len(h.i.Data) - h.i.safe
		return err
	}
	if h.i.lost == 0 {
		h.i.safe = len(h.i.Data)
	}
	return nil
}

func (h *handle) Close() error { return nil }

// Swap puts other octets, durably, where a file was: what somebody else does.
func (d *Disk) Swap(name string, octets []byte) {
	i := &Inode{Data: octets, safe: len(octets)}
	d.Entries[name], d.durable[name] = i, i
}
