package network

import (
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"time"
)

// Handler serves the phones: "/" is a page in Italian that shows new messages by
// itself (or, without scripts, by its link "Aggiorna"),
// "/api/inbox?phone=%2B39..." one inbox as JSON, "/api/inbox" all of them.
func (n *Network) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", n.page)
	mux.HandleFunc("GET /api/inbox", n.api)
	mux.HandleFunc("GET /news.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write([]byte(newsScript))
	})
	return mux
}

// newsScript loads the page again when an inbox has changed. A timed refresh
// would take the page away from under people who read it with assistive tools.
const newsScript = `let seen = null;
setInterval(async () => {
  const r = await fetch("/api/inbox");
  const now = await r.text();
  if (seen !== null && now !== seen) location.reload();
  seen = now;
}, 1000);
`

type phoneView struct {
	Number   string
	Messages []SMS // newest first
}

func (n *Network) page(w http.ResponseWriter, r *http.Request) {
	only := r.URL.Query().Get("phone")
	numbers := n.Phones()
	slices.Sort(numbers)
	var phones []phoneView
	for _, number := range numbers {
		if only != "" && only != number {
			continue
		}
		in := n.Inbox(number)
		slices.Reverse(in)
		phones = append(phones, phoneView{number, in[:min(len(in), 50)]})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'")
	_ = pageTemplate.Execute(w, struct {
		Phones []phoneView
		Modems int
		Now    time.Time
		Only   bool
	}{phones, n.cfg.Modems, time.Now(), only != ""})
}

func (n *Network) api(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if phone := r.URL.Query().Get("phone"); phone != "" {
		in := n.Inbox(phone)
		if in == nil {
			in = []SMS{}
		}
		_ = json.NewEncoder(w).Encode(in)
		return
	}
	all := map[string][]SMS{}
	for _, number := range n.Phones() {
		all[number] = n.Inbox(number)
	}
	_ = json.NewEncoder(w).Encode(all)
}

var pageTemplate = template.Must(template.New("phones").Parse(`<!DOCTYPE html>
<html lang="it">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Telefoni simulati</title>
<style>
:root{color-scheme:light dark;--bg:#eef1f6;--card:#fff;--ink:#17212f;--dim:#5b6878;--bubble:#e3ecfa;--edge:#d3dae4;--mark:#0059b3}
@media (prefers-color-scheme:dark){:root{--bg:#10151c;--card:#1a222c;--ink:#e8edf4;--dim:#9aa7b6;--bubble:#24384f;--edge:#2d3947;--mark:#79b8ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
header{padding:1.5rem clamp(1rem,4vw,3rem) .5rem}
h1{margin:0;font-size:1.6rem}
header p{margin:.25rem 0 0;color:var(--dim)}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(18rem,1fr));gap:1.25rem;padding:1rem clamp(1rem,4vw,3rem) 3rem}
.phone{background:var(--card);border:1px solid var(--edge);border-radius:1.6rem;padding:1rem;min-height:20rem;box-shadow:0 2px 10px rgb(0 0 0/.06)}
.phone h2{margin:0 0 .75rem;padding-bottom:.6rem;border-bottom:1px solid var(--edge);text-align:center;font-size:1.05rem;font-variant-numeric:tabular-nums}
header a{color:var(--mark)}
.phone h2 a{color:var(--mark);text-decoration:none}
.phone h2 a:hover,.phone h2 a:focus{text-decoration:underline}
ol{list-style:none;margin:0;padding:0}
li{background:var(--bubble);border-radius:1rem 1rem 1rem .3rem;padding:.6rem .8rem;margin-bottom:.7rem}
li p{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
li small{color:var(--dim);font-variant-numeric:tabular-nums}
.empty{grid-column:1/-1;text-align:center;color:var(--dim);padding:4rem 1rem;border:2px dashed var(--edge);border-radius:1.6rem}
</style>
</head>
<body>
<header>
<h1>Telefoni simulati</h1>
<p>Rete di prova con {{.Modems}} modem: nessun SMS lascia questo computer. Aggiornato alle {{.Now.Format "15:04:05"}}. <a href="">Aggiorna</a>{{if .Only}} <a href="/">Tutti i telefoni</a>{{end}}</p>
</header>
<main>
{{range .Phones}}<section class="phone" aria-label="Telefono {{.Number}}">
<h2><a href="/?phone={{.Number}}">{{.Number}}</a></h2>
<ol>{{range .Messages}}<li><p>{{.Text}}</p><small>da {{.From}} · {{.At.Format "15:04:05"}}</small></li>{{end}}</ol>
</section>
{{else}}<p class="empty">Nessun messaggio ricevuto. I telefoni compaiono qui al primo SMS.</p>
{{end}}</main>
<script src="/news.js"></script>
</body>
</html>
`))
