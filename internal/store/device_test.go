package store_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"custode/internal/fault"
	"custode/internal/id"
	"custode/internal/store"
	"custode/internal/store/otpstore"
	"custode/internal/store/storetest"
	"custode/otpvault/device"
	"custode/otpvault/oath"
	"custode/otpvault/proof"
	"custode/otpvault/seed"
)

// tokenFake stands for the token: it compares codes of the seed of RFC 4226, and MACs are
// those of a key in memory.
type tokenFake struct{}

func (tokenFake) Match(ctx context.Context, q seed.Question) ([]int, error) {
	return storetest.DeviceMAC{}.Match(ctx, q.Counters, q.Digits, q.Code)
}

func (tokenFake) MAC(_ context.Context, data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte("key"))
	m.Write(data)
	return m.Sum(nil), nil
}

func (tokenFake) Unwrap(_ context.Context, blob, _ []byte) ([]byte, error) { return blob, nil }

// prepared opens a login's challenge for each of 500 submissions of a code.
func prepared(ctx context.Context, db *store.DB, d device.Device) (func(code string) (accepted, repeated int), error) {
	devices := otpstore.New(db)
	desk, err := proof.New(proof.Config{Devices: devices, Store: devices, Matcher: tokenFake{}, MAC: tokenFake{}, Wrapper: tokenFake{}, Random: rand.Reader,
		Now: func() time.Time { return d.Created }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	const n = 500
	flows, challenges := make([]id.FlowID, n), make([]id.ChallengeID, n)
	for i := range n {
		if flows[i], err = id.NewFlowID(rand.Reader); err != nil {
			return nil, err
		}
		if challenges[i], err = desk.Open(ctx, flows[i], d.Subject, d.Serial, d.Created.Add(time.Minute)); err != nil {
			return nil, err
		}
	}
	return func(code string) (accepted, repeated int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				v, _, err := desk.Verify(ctx, challenges[i], flows[i], d.Subject, code)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					fmt.Println("failed:", err)
				case v == oath.Accepted:
					accepted++
				case v == oath.Repeated:
					repeated++
				}
			})
		}
		wg.Wait()
		return accepted, repeated
	}, nil
}

// submitAsChild says that it is ready, waits for a line, submits the code 500
// times at once and prints how often it was accepted and repeated.
func submitAsChild(ctx context.Context, db *store.DB, serial, code string) error {
	s, err := id.ParseSerial(serial)
	if err != nil {
		return err
	}
	d, err := otpstore.New(db).Device(ctx, s)
	if err != nil {
		return err
	}
	submit, err := prepared(ctx, db, d)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	accepted, repeated := submit(code)
	fmt.Println("verdicts", accepted, repeated)
	return nil
}

// TestTwoProcessesOneCode submits one code 1 000 times, each in a login of its own, from two processes on one
// file: exactly one success. By event at the expected counter and within the look-ahead, by time in the step
// of now and in the one after it.
func TestTwoProcessesOneCode(t *testing.T) {
	byEvent := oath.Parameters{Kind: oath.Event, Hash: oath.SHA1, Digits: 6}
	byTime := oath.Parameters{Kind: oath.Time, Hash: oath.SHA1, Digits: 8, Period: 30 * time.Second}
	for i, c := range []struct {
		name       string
		parameters oath.Parameters
		now        time.Time
		codes      []string
	}{
		{"event", byEvent, time.Now(), []string{"755224", "399871"}},                 // RFC 4226, appendix D: counters 0 and 8
		{"time", byTime, time.Unix(1111111109, 0), []string{"07081804", "14050471"}}, // RFC 6238, appendix B: two steps in a row
	} {
		t.Run(c.name, func(t *testing.T) {
			path := migrated(t)
			db := mustOpen(t, path)
			subject, err := id.ParseSubject("s_0123456789abcdef0123456789abcdef")
			if err != nil {
				t.Fatal(err)
			}
			d := storetest.NewActiveDevice(t, i, subject, c.now)
			d.Parameters = c.parameters
			if err := otpstore.New(db).AddDevices(t.Context(), []device.Device{d}, device.Change{Actor: "op", Reason: "x", At: d.Created}); err != nil {
				t.Fatal(err)
			}
			for _, code := range c.codes {
				submitTwice(t, path, db, d, code)
			}
		})
	}
}

// submitTwice submits a code 500 times here and 500 times in another process, at once.
func submitTwice(t *testing.T, path string, db *store.DB, d device.Device, code string) {
	t.Helper()
	submit, err := prepared(t.Context(), db, d)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, path, d.Serial.String(), code)
	cmd.Env = append(os.Environ(), childVariable+"=submit")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the child said %q", lines.Text())
	}
	if _, err := fmt.Fprintln(stdin, "go"); err != nil {
		t.Fatal(err)
	}
	accepted, repeated := submit(code)
	var a, r int
	if !lines.Scan() {
		t.Fatal("the child said no more")
	}
	if _, err := fmt.Sscanf(lines.Text(), "verdicts %d %d", &a, &r); err != nil {
		t.Fatalf("%q: %v", lines.Text(), err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	t.Logf("code %s: accepted %d here, %d there", code, accepted, a)
	if accepted+a != 1 || repeated+r != 999 {
		t.Errorf("accepted %d and %d times, repeated %d and %d", accepted, a, repeated, r)
	}
}

// TestForeignDeviceRow: a row that somebody changed by other means is refused.
func TestForeignDeviceRow(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	subject, err := id.ParseSubject("s_0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	for i, change := range []string{"digits = 5", "kind = 257", "subject = 'nobody'", "blocked = 1", "state = 4", "hash = 0", "subject = ''"} {
		d := storetest.NewActiveDevice(t, i, subject, time.Now())
		if err := otpstore.New(db).AddDevices(t.Context(), []device.Device{d}, device.Change{Actor: "op", Reason: "x", At: d.Created}); err != nil {
			t.Fatal(err)
		}
		execRaw(t, path, "UPDATE otp_device SET "+change+" WHERE serial = '"+d.Serial.String()+"'")
		_, err := otpstore.New(db).Device(t.Context(), d.Serial)
		wantKind(t, change, err, fault.Internal)
		// The work on all devices goes past it, and can name it.
		list, err := otpstore.New(db).DevicesPast(t.Context(), "", 100)
		if err != nil || len(list) != i+1 || list[i].Serial != d.Serial || list[i].Blob != nil {
			t.Errorf("%s: %+v, %v", change, list, err)
		}
	}
}

// TestDeviceHistoryHidden: who moved a device and why is free text, in which operators say how they
// identified a person. It is not readable in the files; rows from before it was hidden still are shown.
func TestDeviceHistoryHidden(t *testing.T) {
	path := migrated(t)
	db := mustOpen(t, path)
	devices := otpstore.New(db)
	d := storetest.NewDevice(t, 1, time.Now().UTC())
	said := device.Change{Actor: "operatrice-maria", Reason: "carta d'identita CA77777ZZ", At: d.Created}
	if err := devices.AddDevices(t.Context(), []device.Device{d}, said); err != nil {
		t.Fatal(err)
	}
	got, err := devices.DeviceHistory(t.Context(), d.Serial)
	if err != nil || len(got) != 1 || got[0].Actor != said.Actor || got[0].Reason != said.Reason {
		t.Errorf("%+v, %v", got, err)
	}
	data := onDisk(t, path)
	for _, word := range []string{"maria", "CA77777ZZ"} {
		if bytes.Contains(data, []byte(word)) {
			t.Errorf("%s is readable", word)
		}
	}
	execRaw(t, path, "UPDATE otp_device_event SET reason = actor WHERE number = 1")
	_, err = devices.DeviceHistory(t.Context(), d.Serial)
	wantKind(t, "a moved box", err, fault.Internal)
}
