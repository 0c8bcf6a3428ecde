package modem

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"custode/modem/modemtest"
)

// TestUSSDHoldsNoCodeUp: while a network thinks about an operator's question, that
// bay's modem gets no message: a code handed to it would wait for the answer.
func TestUSSDHoldsNoCodeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick := &radio{}
		asked := modemtest.Polite(nil) // says OK to AT+CUSD and nothing more
		r, _ := scripted(t, Config{}, asked, quick.react())
		time.Sleep(2 * time.Second)
		done := make(chan error, 1)
		go func() {
			_, err := r.pool.USSD(context.Background(), "bay0", "*123#")
			done <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		for _, text := range []string{"1", "2", "3"} {
			r.journal.wait(t, r.submit(t, phone1, text).ID, Sent)
		}
		if took := time.Since(began); took > 4*time.Second || len(quick.texts()) != 3 {
			t.Errorf("three codes took %v; the other bay sent %d", took, len(quick.texts()))
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("question: %v", err)
		}
		if o := r.pool.Overview(); o.OnTheAir != 0 {
			t.Errorf("%d on the air", o.OnTheAir)
		}
		// The bay is back.
		_ = r.pool.Drain("bay1", true)
		r.journal.wait(t, r.submit(t, phone1, "4").ID, Sent)
		r.stop()
	})
}
