// Package sqlite is the generated code of the queries in ../query for SQLite: a
// method per query, rows as plain structs. sqlc v1.31.1 writes it ("sqlc
// generate" in the parent folder); nothing here is edited by hand, and nobody
// but internal/store imports it.
package sqlite
