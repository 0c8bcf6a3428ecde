package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The objectives of the certified log.
const (
	refAppends    = 116.0 // records/s: ten million authentications a day
	refAppendP95  = 20.0  // ms that 64 logins at once may wait for the register
	refPerMillion = 5.0   // GB on disk for a million records
	refVerify     = 600.0 // s for a million records
	refHeap       = 64.0  // MB more after all appends than before
)

// benchCertlog runs `custode log bench` on the disk of this folder.
func benchCertlog(ctx context.Context, custode string, quick bool, f figures) error {
	records := 1_000_000
	if quick {
		records = 20_000
	}
	dir, err := filepath.Abs("bench")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, custode, "log", "bench", "--dir", dir, "--records", fmt.Sprint(records), "--writers", "64")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("custode log bench: %w", err)
	}
	var r struct {
		AppendsPerSecond, P50, P95, P95Alone, Verify float64
		OctetsOnDisk, OctetsPlain                    float64
		HeapBefore, HeapAfter, HeapVerify            float64
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("custode log bench: %w", err)
	}
	millions := float64(records) / 1e6
	fmt.Printf("%d records by 64 writers; %.2f of their plain size\n", records, r.OctetsOnDisk/r.OctetsPlain)
	f.print("certlog_append_rate", r.AppendsPerSecond, "records/s", refAppends)
	f.print("certlog_append_p50", r.P50*1e3, "ms", refAppendP95)
	f.print("certlog_append_p95", r.P95*1e3, "ms", refAppendP95)
	f.print("certlog_append_alone_p95", r.P95Alone*1e3, "ms", refAppendP95)
	f.print("certlog_disk_per_million", r.OctetsOnDisk/1e9/millions, "GB", refPerMillion)
	f.print("certlog_verify_per_million", r.Verify/millions, "s", refVerify)
	f.print("certlog_heap_after_append", max(0, r.HeapAfter-r.HeapBefore)/1e6, "MB", refHeap)
	f.print("certlog_heap_after_verify", max(0, r.HeapVerify-r.HeapBefore)/1e6, "MB", refHeap)
	return benchLogWait(ctx, custode, quick, f)
}
