package hsmbench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"custode/hsm"
	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/seed"
)

const (
	few = 1000 // devices in the smaller database
	// seeds is how many different ones there are: wrapping a million would take minutes of the
	// token's time and say nothing about verification. Rows are bound one by one.
	seeds = 1000
	batch = 1000
	// objective: a delivery of a thousand hardware tokens is imported in a second.
	objective = 1000.0
)

// fleet is a database of devices, all active, TOTP with SHA-1 and 6 digits.
type fleet struct {
	t       token
	db      *store.DB
	path    string
	n       int
	wrapped [][]byte // by seed
}

// otp verifies codes in turns with a small and with a large database.
func (c *Command) otp(ctx context.Context, t token) (_ []Figure, err error) {
	if c.Dir == "" || c.Devices < few {
		return nil, fault.Newf(fault.Invalid, "bench codes", "--dir is missing, or fewer than %d devices", few)
	}
	dir, err := os.MkdirTemp(c.Dir, "otp")
	if err != nil {
		return nil, fault.New(fault.Unavailable, "bench codes", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var wrapped [][]byte
	begun := time.Now()
	for i := range seeds {
		w, err := t.WrapSecret(ctx, t.seed, hsm.MechanismAESKeyWrap, hsm.KeyTypeGeneric, append(secret(i), make([]byte, 44)...))
		if err != nil {
			return nil, err
		}
		wrapped = append(wrapped, w)
	}
	wrapping := float64(seeds) / time.Since(begun).Seconds()
	fleets := []*fleet{{t: t, n: few}, {t: t, n: c.Devices}}
	for i, f := range fleets {
		f.path, f.wrapped = filepath.Join(dir, fmt.Sprintf("%d.db", i)), wrapped
		if err := f.enrol(ctx); err != nil {
			return nil, err
		}
		defer f.db.Close()
	}
	binding := float64(c.Devices) / time.Since(begun).Seconds()
	const turns = 20
	alone, busy := [2][]time.Duration{}, [2][]time.Duration{}
	for turn := range turns {
		for i := range fleets {
			f := fleets[(turn+i)%2]
			for _, kind := range []struct {
				workers int
				into    *[2][]time.Duration
			}{{1, &alone}, {most, &busy}} {
				took, err := f.verify(ctx, turn, kind.workers, c.Codes/turns)
				if err != nil {
					return nil, err
				}
				kind.into[(turn+i)%2] = append(kind.into[(turn+i)%2], took...)
			}
		}
	}
	size, err := fleets[1].size()
	if err != nil {
		return nil, err
	}
	runtime.GC()
	resident, err := status("VmRSS")
	if err != nil {
		return nil, err
	}
	ms := func(all []time.Duration, q float64) float64 { return quantile(all, q).Seconds() * 1e3 }
	return []Figure{
		{"otp_wrap_rate", wrapping, objective, "1/s"},
		{"otp_enrol_rate", binding, objective, "1/s"},
		{"otp_verify_p50", ms(alone[1], 0.5), ms(alone[0], 0.5), "ms"},
		{"otp_verify_p95", ms(alone[1], 0.95), ms(alone[0], 0.95), "ms"},
		{"otp_verify_busy_p50", ms(busy[1], 0.5), ms(busy[0], 0.5), "ms"},
		{"otp_verify_busy_p95", ms(busy[1], 0.95), ms(busy[0], 0.95), "ms"},
		{"otp_database", size / 1e6, float64(c.Devices) * 1024 / 1e6, "MB"},
		{"otp_memory", resident / 1e3, 1024, "MB"},
	}, nil
}

func secret(i int) []byte {
	sum := sha1.Sum(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return sum[:]
}

// names returns the serial number and the subject of device i, which nobody has to remember.
func names(i int) (id.Serial, id.Subject, error) {
	serial, err := id.ParseSerial(fmt.Sprintf("B%09d", i))
	if err != nil {
		return serial, id.Subject{}, err
	}
	sum := sha256.Sum256([]byte(serial.String()))
	subject, err := id.NewSubject(bytes.NewReader(sum[:]))
	return serial, subject, err
}

var parameters = oath.Parameters{Kind: oath.Time, Hash: oath.SHA1, Digits: 6, Period: 30 * time.Second}

func bindingOf(serial id.Serial, subject id.Subject, blob []byte) []byte {
	return append([]byte("bench "+serial.String()+" "+subject.String()+" "+strings.Repeat("x", 100)), blob...)
}

// enrol makes the database.
func (f *fleet) enrol(ctx context.Context) (err error) {
	keys, err := f.t.Wrapper(f.t.records)
	if err != nil {
		return err
	}
	cfg := store.Config{Path: f.path, Keys: keys}
	if err := store.Migrate(ctx, cfg); err != nil {
		return err
	}
	if f.db, err = store.Open(ctx, cfg); err != nil {
		return err
	}
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for from := 0; from < f.n; from += batch {
		list := make([]device.Device, min(batch, f.n-from))
		errs := make([]error, len(list))
		var wg sync.WaitGroup
		for w := range most {
			wg.Go(func() {
				for i := w; i < len(list); i += most {
					list[i], errs[i] = f.device(ctx, from+i, made)
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if err := otpstore.New(f.db).AddDevices(ctx, list, device.Change{Actor: "bench", Reason: "bench", At: made}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) device(ctx context.Context, i int, made time.Time) (device.Device, error) {
	serial, subject, err := names(i)
	if err != nil {
		return device.Device{}, err
	}
	sealed := seed.Sealed{
		Mechanism: hsm.MechanismAESKeyWrap, KeyType: hsm.KeyTypeGeneric, Hash: parameters.Hash, KEK: f.t.seed, Wrapped: f.wrapped[i%seeds],
	}
	d := device.Device{
		Serial: serial, Subject: subject, State: device.Active, Parameters: parameters, Counter: oath.State{Version: 1, Next: 1},
		Created: made, Delivered: made, Activated: made,
	}
	if d.Blob, err = sealed.Encode(); err != nil {
		return d, err
	}
	d.MAC, err = f.t.mac.MAC(ctx, bindingOf(serial, subject, d.Blob))
	return d, err
}

// verify has workers verify n codes of devices that are spread over all, and returns the times.
func (f *fleet) verify(ctx context.Context, turn, workers, n int) ([]time.Duration, error) {
	took, errs := make([]time.Duration, n), make([]error, n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				// A step that shares no divisor with the number of devices.
				at := ((turn*n+i)*7919 + workers) % f.n
				begun := time.Now()
				errs[i] = f.once(ctx, at)
				took[i] = time.Since(begun)
			}
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// once is one login's share: find the subject's device, ask the token, count.
func (f *fleet) once(ctx context.Context, i int) error {
	_, subject, err := names(i)
	if err != nil {
		return err
	}
	for range 16 {
		found, err := otpstore.New(f.db).DevicesOf(ctx, subject)
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fault.Newf(fault.Internal, "bench codes", "%d devices", len(found))
		}
		d := found[0]
		s, err := seed.Decode(d.Blob)
		if err != nil {
			return err
		}
		next := d.Counter.Next
		matched, err := f.t.MatchCodes(ctx, hsm.CodeQuery{
			KEK: s.KEK, Wrap: s.Mechanism, KeyType: s.KeyType, MAC: hsm.MechanismSHA1, Wrapped: s.Wrapped, Binder: f.t.bind,
			Binding: bindingOf(d.Serial, d.Subject, d.Blob), BindingMAC: d.MAC, Digits: d.Parameters.Digits,
			Counters: []uint64{next, next + 1, next + 2}, Code: code(secret(i%seeds), next+1),
		})
		if err != nil {
			return err
		}
		if !slices.Contains(matched, 1) {
			return fault.Newf(fault.Internal, "bench codes", "a right code matches %v", matched)
		}
		after := d.Counter
		after.Version, after.Next = after.Version+1, next+2
		err = otpstore.New(f.db).SwapCounter(ctx, d.Serial, d.Counter, after, d.Created)
		if !fault.Is(err, fault.Conflict) { // another worker had the same device
			return err
		}
	}
	return fault.Newf(fault.Busy, "bench codes", "one device is asked for too often")
}

// code is what the device shows.
func code(secret []byte, counter uint64) string {
	m := hmac.New(sha1.New, secret)
	m.Write(binary.BigEndian.AppendUint64(nil, counter))
	sum := m.Sum(nil)
	at := sum[19] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:])&0x7fffffff%1_000_000)
}

// size is what the database takes on the disk, in octets.
func (f *fleet) size() (float64, error) {
	var sum int64
	for _, end := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(f.path + end)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fault.New(fault.Unavailable, "measure database", err)
		}
		if err == nil {
			sum += info.Size()
		}
	}
	return float64(sum), nil
}

// status reads a line of /proc/self/status, in kB.
func status(name string) (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fault.New(fault.Unavailable, "measure memory", err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == name+":" {
			return strconv.ParseFloat(words[1], 64)
		}
	}
	return 0, fault.Newf(fault.Unavailable, "measure memory", "no %s", name)
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}
