package certlog

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
)

// disk is a folder as an unkind kernel and disk treat it: what was not synced
// may be lost or torn when the power goes, an fsync that failed loses its pages
// for good though they can still be read, and any call can fail or be the last.
type disk struct {
	rnd     *rand.Rand
	entries map[string]*inode // as seen now
	durable map[string]*inode // after a power loss, if no change since survives
	changes []func(map[string]*inode)
	calls   int
	failAt  map[int]bool // these calls fail, once
	crashAt int          // from this call on nothing works; 0: never
}

var (
	errDisk  = errors.New("input/output error")
	errPower = errors.New("the power is gone")
)

type inode struct {
	data []byte // as seen now
	safe int    // octets that survive a power loss
	lost int    // octets whose fsync failed: seen, never safe
}

func newDisk(seed uint64) *disk {
	return &disk{rnd: rand.New(rand.NewPCG(seed, 1)), entries: map[string]*inode{}, durable: map[string]*inode{}, failAt: map[int]bool{}}
}

func (d *disk) step() error {
	d.calls++
	if d.crashAt > 0 && d.calls >= d.crashAt {
		return errPower
	}
	if d.failAt[d.calls] {
		return errDisk
	}
	return nil
}

// reboot returns the folder after the power came back.
func (d *disk) reboot() *disk {
	n := newDisk(d.rnd.Uint64())
	n.durable = maps.Clone(d.durable)
	for _, change := range d.changes {
		if d.rnd.IntN(2) == 0 {
			change(n.durable)
		}
	}
	done := map[*inode]*inode{}
	for name, i := range n.durable {
		if done[i] == nil {
			keep := i.safe
			if i.lost == 0 && len(i.data) > keep {
				keep += d.rnd.IntN(len(i.data) - keep + 1)
			}
			data := slices.Clone(i.data[:keep])
			if keep > i.safe && d.rnd.IntN(3) == 0 {
				for k := i.safe + d.rnd.IntN(keep-i.safe); k < keep; k++ {
					data[k] = 0 // the length reached the disk, the block did not
				}
			}
			done[i] = &inode{data: data, safe: keep}
		}
		n.durable[name] = done[i]
	}
	n.entries = maps.Clone(n.durable)
	return n
}

func (d *disk) change(f func(map[string]*inode)) {
	f(d.entries)
	d.changes = append(d.changes, f)
}

func (d *disk) List() (map[string]int64, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for name, i := range d.entries {
		out[name] = int64(len(i.data))
	}
	return out, nil
}

func (d *disk) Open(name string) (File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	i := d.entries[name]
	if i == nil {
		return nil, os.ErrNotExist
	}
	return &handle{d, i}, nil
}

func (d *disk) Create(name string) (File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	if d.entries[name] != nil {
		return nil, os.ErrExist
	}
	i := &inode{}
	d.change(func(m map[string]*inode) { m[name] = i })
	return &handle{d, i}, nil
}

func (d *disk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	i := d.entries[from]
	if i == nil {
		return os.ErrNotExist
	}
	d.change(func(m map[string]*inode) {
		if m[from] == i {
			m[to] = i
			delete(m, from)
		}
	})
	return nil
}

func (d *disk) Remove(name string) error {
	if d.entries[name] == nil {
		return os.ErrNotExist
	}
	if err := d.step(); err != nil {
		return err
	}
	d.change(func(m map[string]*inode) { delete(m, name) })
	return nil
}

func (d *disk) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	d.durable, d.changes = maps.Clone(d.entries), nil
	return nil
}

type handle struct {
	d *disk
	i *inode
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.d.step(); err != nil {
		return 0, err
	}
	if off >= int64(len(h.i.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.i.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	if err := h.d.step(); err != nil {
		n := h.d.rnd.IntN(len(p) + 1) // a part may have been written
		h.i.data = append(h.i.data, p[:n]...)
		return n, err
	}
	h.i.data = append(h.i.data, p...)
	return len(p), nil
}

func (h *handle) Sync() error {
	if err := h.d.step(); err != nil {
		h.i.lost = len(h.i.data) - h.i.safe
		return err
	}
	if h.i.lost == 0 {
		h.i.safe = len(h.i.data)
	}
	return nil
}

func (h *handle) Close() error { return nil }
