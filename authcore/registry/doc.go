// Package registry is the replica of the federation registry: which service
// providers exist, and the metadata that says with which keys they sign and
// where answers go. There are two, with the same look-up.
//
// [Federation] follows the national registry: a signed aggregate in one document or in
// pages, and the listing that says who is disabled or deleted. What a source
// ([HTTP], [File]) hands over is read once, in bounded memory, by
// authcore/registry/aggregate, kept as a file (the last good copy) and believed only if a pinned
// certificate signed it. In memory there is an index; the metadata of one service
// provider is read from the copy, compared with its digest and parsed when it is asked for,
// and the most recent ones are remembered. A refresh builds the next copy beside the
// current one and switches in one step, or changes nothing.
//
// [Registry] is a directory of signed metadata files, one EntityDescriptor each,
// for demonstrations and small installations.
//
// In both, each service provider is judged on its own: a broken one is
// reported and left out, and spoils no other. It imports authcore/saml, which
// holds the parser, and is given to a saml.Verifier.
package registry
