package modemsim

import (
	"math/rand/v2"
	"testing"

	"custode/simulators/modemsim/dialect"
	"custode/simulators/modemsim/network"
)

// Whatever a program writes, the modem lives on. No port is involved.
func FuzzDialogue(f *testing.F) {
	f.Add(byte(0), []byte("ATE0V1Q0;+CMEE=1\rAT+CMGS=18\r"+hello+"\x1aAT+CMGL=4\r"))
	f.Add(byte(3), []byte("AT+CPMS=\"SM\",\"ME\";+CMGD=1,4;+CNMI=2,1,0,2,0\rAT+CMGR=0\rAT+CNMA=1\r"))
	f.Add(byte(9), []byte("ATS3=13S4?\rAT+CPIN=\"1\",\"2\"\rAT+CUSD=1,\"*1#\"\rAT+COPS=3,0;+COPS?\rAT+CMGW=18\r\x1b"))
	f.Add(byte(12), []byte("AT+CFUN=4;+CFUN=1,1\rAT+CREG=2;+CREG?\rAT+CSMS=1;+CSCS=\"UCS2\";+CMGF=2;+CSCA=\"+39\",145\r"))
	f.Fuzz(func(t *testing.T, make byte, said []byte) {
		names := dialect.Names()
		p, _ := dialect.Get(names[int(make)%len(names)])
		b := &Bank{cfg: Config{Chatter: 0.5}, rnd: rand.New(rand.NewPCG(1, 1)), barred: map[string]int{}, byNumber: map[string]Outcome{}}
		b.Network, b.air = network.New(network.Config{Modems: 1})
		d := newDevice(b, 0, p, "")
		b.devices = []*device{d}
		d.mu.Lock()
		for _, c := range said {
			d.input(c)
		}
		used := d.mem(1).Store.Used()
		d.mu.Unlock()
		b.air.End()
		b.air.Wait()
		if used > len(d.mem(1).Store.Slots) || len(b.Ledger()) > len(b.Handoffs()) {
			t.Error("more in the ledger than was sent")
		}
	})
}
