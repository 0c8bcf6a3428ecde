package main

import (
	"runtime"

	"custode/cmd/custode/hsmcmd"
	"custode/internal/metrics"
	"custode/modem/alarm"
	"custode/modem/meter"
)

// metricsPage writes every figure. Labels: bay names (64 at most), classes, states
// and alarm names; never numbers.
func (a *appliance) metricsPage(p *metrics.Page) {
	o := a.pool.Overview()
	for _, b := range o.Bays {
		p.Gauge("custode_modem_state", "1 for the state the bay is in.", 1, "bay", b.Name, "state", string(b.State))
	}
	gauge := func(name, help string, value func(i int) float64) {
		for i, b := range o.Bays {
			p.Gauge("custode_modem_"+name, help, value(i), "bay", b.Name)
		}
	}
	counter := func(name, help string, value func(i int) uint64) {
		for i, b := range o.Bays {
			p.Counter("custode_modem_"+name+"_total", help, float64(value(i)), "bay", b.Name)
		}
	}
	gauge("signal_dbm", "Signal, 0 when unknown.", func(i int) float64 { return float64(o.Bays[i].Signal) })
	gauge("registration", "+CREG stat.", func(i int) float64 { return float64(o.Bays[i].Registration) })
	gauge("drained", "1 when an operator took the bay out.", func(i int) float64 { return truth(o.Bays[i].Drained) })
	gauge("breaker_closed", "1 when the bay is trusted with messages.", func(i int) float64 { return truth(o.Bays[i].Breaker == "closed") })
	gauge("expected_submit_seconds", "Moving average of the time of a submission.", func(i int) float64 { return o.Bays[i].SubmitSeconds })
	gauge("error_share", "Moving share of attempts that the bay failed.", func(i int) float64 { return o.Bays[i].ErrorShare })
	gauge("budget_tokens", "SMS the card may send at once.", func(i int) float64 { return o.Bays[i].Tokens })
	gauge("budget_day_left", "SMS left today, -1 without a limit.", func(i int) float64 { return float64(o.Bays[i].DayLeft) })
	gauge("budget_month_left", "SMS left this month, -1 without a limit.", func(i int) float64 { return float64(o.Bays[i].MonthLeft) })
	counter("sent", "Messages the network accepted.", func(i int) uint64 { return o.Bays[i].Sent })
	counter("refused", "Messages refused.", func(i int) uint64 { return o.Bays[i].Refused })
	counter("doubtful", "Messages without an answer.", func(i int) uint64 { return o.Bays[i].Doubtful })
	counter("reports", "Status reports matched.", func(i int) uint64 { return o.Bays[i].Reports })
	counter("reports_unmatched", "Status reports of no known message.", func(i int) uint64 { return o.Bays[i].Unmatched })
	counter("opens", "Openings of the port.", func(i int) uint64 { return o.Bays[i].Opens })
	counter("resyncs", "Resynchronisations.", func(i int) uint64 { return o.Bays[i].Resyncs })
	counter("hedges", "Second copies that the bay's slowness caused.", func(i int) uint64 { return o.Bays[i].Hedges })
	span := func(name, help string, value func(i int) meter.Snapshot) {
		for i, b := range o.Bays {
			histogram(p, "custode_modem_"+name+"_seconds", help, value(i), "bay", b.Name)
		}
	}
	span("handoff", "Acceptance to hand-over of codes and alerts.", func(i int) meter.Snapshot { return o.Bays[i].HandoffSpan })
	span("submit", "Hand-over to receipt.", func(i int) meter.Snapshot { return o.Bays[i].Submit })
	span("delivery", "Receipt to status report.", func(i int) meter.Snapshot { return o.Bays[i].Delivery })
	classes := []string{"code", "alert", "bulk"}
	for _, c := range classes {
		p.Gauge("custode_sms_waiting", "Messages in the queue.", float64(o.Waiting[c]), "class", c)
	}
	for _, c := range classes {
		histogram(p, "custode_sms_handoff_seconds", "Acceptance to the first hand-over.", o.Handoff[c], "class", c)
	}
	for _, s := range []string{"sending", "sent", "delivered", "failed", "expired", "maybe-sent", "queued"} {
		p.Counter("custode_sms_steps_total", "Recorded steps of messages.", float64(o.Steps[s]), "state", s)
	}
	p.Gauge("custode_sms_on_the_air", "Bays that send.", float64(o.OnTheAir))
	p.Gauge("custode_sms_code_load", "Bays that codes keep busy.", o.Load)
	p.Gauge("custode_sms_code_load_allowed", "Load at which 95 of 100 codes leave within 3 s.", o.Allowed)
	raised := map[[2]string]bool{}
	for _, r := range o.Alarms {
		raised[[2]string{string(r.Name), r.Bay}] = true
		p.Gauge("custode_alarm", "1 while the alarm is raised.", 1, "alarm", string(r.Name), "bay", r.Bay)
	}
	for _, n := range alarm.Names() { // so that "no alarm" is a value, too
		if !raised[[2]string{string(n), ""}] {
			p.Gauge("custode_alarm", "1 while the alarm is raised.", 0, "alarm", string(n), "bay", "")
		}
	}
	hsmcmd.Metrics(a.token, p)
	a.registers.Metrics(p)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.Gauge("custode_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	p.Gauge("custode_heap_bytes", "Heap in use.", float64(m.HeapInuse))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func histogram(p *metrics.Page, name, help string, s meter.Snapshot, labels ...string) {
	buckets := make([]metrics.Bucket, 0, len(s.Buckets))
	for _, b := range s.Buckets {
		bound := -1.0
		if b.Bound >= 0 {
			bound = b.Bound.Seconds()
		}
		buckets = append(buckets, metrics.Bucket{Bound: bound, Count: b.Count})
	}
	p.Histogram(name, help, buckets, s.Sum.Seconds(), s.Count, labels...)
}
