package spsim

import (
	"testing"

	"github.com/beevik/etree"
)

// Answer is answer for tests of other packages.
type Answer struct {
	Level                         int
	Assertion, Response, After    func(*etree.Element)
	UnsignedResponse, UnsignedAss bool
	StrangerResponse, StrangerAss bool
	Status                        [3]string
}

// BaseURL is the SP's address in tests.
const BaseURL = testBase

// Exchange makes a request and an answer to it.
func Exchange(t testing.TB, r Request, a Answer) (sp *SP, response string) {
	sp, idp, c := newSP(t, nil)
	id := ask(t, sp, c, r)
	return sp, idp.respond(t, sp, id, answer{level: a.Level, assertion: a.Assertion, response: a.Response, after: a.After,
		unsignedResponse: a.UnsignedResponse, unsignedAss: a.UnsignedAss, strangerResponse: a.StrangerResponse, strangerAss: a.StrangerAss, status: a.Status})
}

// Breakers of elements.
var (
	Set, Unset, Text, Remove, Double = set, unset, text, remove, double

	Add = add
)

const LongAgo, FarAhead = longAgo, farAhead
