// Draws what /events sends. Text comes into the page as text only, never as HTML.

/** Pictures that a plot shows: half a minute at first, two minutes in the end. */
const [fewest, most] = [30, 120];
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const show = (value) => (value < 10 ? precise : number).format(value);

/** An element with a class and children, which are elements or text. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function draw(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A card with a plot of some series over time, [class, label] each, and their last values. Stacked: areas upon each other. */
class Plot {
  constructor(title, series, { stacked = false, unit = "" } = {}) {
    Object.assign(this, { series, stacked, unit, history: [] });
    this.now = make("div", "now");
    this.highest = make("span", "highest");
    this.svg = draw("svg", { preserveAspectRatio: "none", role: "img", "aria-label": title });
    this.card = make("section", "card", make("h3", "", title), this.now, make("div", "plot", this.svg, this.highest));
  }

  /** `values`: one for each series; undefined where there is none. */
  add(values) {
    this.history = [...this.history, values].slice(-most);
    const labels = this.series.map(([name, label], i) => {
      const value = values[i] === undefined ? "–" : show(values[i]) + this.unit;
      return make("span", name, `${label} `, make("b", "", value));
    });
    this.now.replaceChildren(...labels);
    const heights = this.history.map((all) => {
      if (!this.stacked) return all;
      let sum = 0;
      return all.map((value) => {
        sum += value ?? 0;
        return sum;
      });
    });
    const highest = Math.max(1, ...heights.flat().filter((value) => value !== undefined));
    this.highest.textContent = show(highest) + this.unit;
    const width = Math.max(this.history.length, fewest) - 1;
    const x = (i) => width - this.history.length + i + 1;
    const y = (value) => 98 - (value / highest) * 84;
    const shapes = this.series.map(([name], s) => {
      if (this.stacked) {
        const top = heights.map((all, i) => `${x(i)},${y(all[s])}`);
        const bottom = heights.map((all, i) => `${x(i)},${y(s === 0 ? 0 : all[s - 1])}`).reverse();
        return draw("path", { class: `area ${name}`, d: `M${[...top, ...bottom].join("L")}Z` });
      }
      let d = "";
      let isDrawing = false;
      heights.forEach((all, i) => {
        if (all[s] !== undefined) d += `${isDrawing ? "L" : "M"}${x(i)},${y(all[s])}`;
        isDrawing = all[s] !== undefined;
      });
      return draw("path", { class: `trace ${name}`, d });
    });
    this.svg.setAttribute("viewBox", `0 0 ${width} 100`);
    this.svg.replaceChildren(draw("line", { x1: 0, x2: width, y1: 98, y2: 98 }), ...shapes);
  }
}

/** Series whose labels are their classes. */
const same = (...names) => names.map((name) => [name, name]);

/** One pool: made once, and brought up to date with each picture. */
class PoolSection {
  constructor(index) {
    this.index = index;
    this.before = undefined;
    this.callsBefore = new Map();
    this.title = make("h2");
    this.limits = make("p", "limits");
    this.conns = new Plot("Connections", same("used", "idle", "draining", "dialing"), { stacked: true });
    this.load = new Plot("Streams, and callers that wait", same("streams", "waiting"));
    this.calls = new Plot("Calls a second", same("calls"));
    this.trouble = new Plot("Dials and failures a second", same("dials", "failures"));
    const quantiles = same("p50", "p99");
    this.waits = new Plot("Time to get a connection", [...quantiles, ["draining", "dials p99"]], { unit: " ms" });
    this.uses = new Plot("Time of calls", quantiles, { unit: " ms" });
    const plots = [this.conns, this.load, this.calls, this.trouble, this.waits, this.uses];
    this.rows = make("tbody");
    const heads = ["key", "conns", "streams", "waiting", "calls/s", "dialed"].map((name) => make("th", "", name));
    const table = make("table", "", make("thead", "", make("tr", "", ...heads)), this.rows);
    this.reasons = make("ul", "reasons");
    this.news = make("ol", "news");
    this.element = make(
      "article",
      "",
      this.title,
      this.limits,
      make("div", "grid", ...plots.map(({ card }) => card)),
      make("section", "card scroll", make("h3", "", "Keys"), table),
      make(
        "div",
        "grid",
        make("section", "card", make("h3", "", "Why connections were closed"), this.reasons),
        make("section", "card", make("h3", "", "What happened"), this.news),
      ),
    );
    this.rows.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button) void explain(this.index, button.dataset.id, button.textContent);
    });
  }

  update({ name, at, stats, times, keys, news }) {
    this.title.textContent = name;
    this.limits.textContent = limitsOf(stats);
    const failed = stats.timeouts + stats.refused + stats.aborted + stats.failed;
    const totals = [stats.hits + stats.served, stats.dialed, failed];
    const seconds = this.before && (at - this.before.at) / 1000;
    if (this.before) {
      const [calls, ...trouble] = totals.map((total, i) => (total - this.before.totals[i]) / seconds);
      this.calls.add([calls]);
      this.trouble.add(trouble);
    }
    this.before = { at, totals };
    this.conns.add([stats.leased, stats.idle, stats.draining, stats.dialing]);
    this.load.add([stats.streams, stats.waiting]);
    this.waits.add([times.wait?.[0], times.wait?.[1], times.dial?.[1]]);
    this.uses.add(times.use ?? [undefined, undefined]);
    this.rows.replaceChildren(...keys.map((key) => this.row(key, seconds)));
    this.callsBefore = new Map(keys.map(({ id, stats: { hits, served } }) => [id, hits + served]));
    const closed = Object.entries(stats.closed).filter(([, count]) => count > 0);
    const commonest = Math.max(1, ...closed.map(([, count]) => count));
    fill(
      this.reasons,
      closed.map((one) => reason(one, commonest)),
    );
    fill(
      this.news,
      news.map((one) => line(one, at)),
    );
  }

  row({ id, name, stats }, seconds) {
    const button = make("button", "", name);
    button.type = "button";
    button.dataset.id = id;
    button.title = `${name}: what would a caller meet now?`;
    const states = ["used", "idle", "draining", "dialing"];
    const counts = [stats.leased, stats.idle, stats.draining, stats.dialing];
    const squares = states.flatMap((state, i) =>
      Array.from({ length: Math.min(counts[i], 40) }, () => make("i", state)),
    );
    const conns = make("div", "conns", ...squares);
    conns.title = states.map((state, i) => `${counts[i]} ${state}`).join(", ");
    const calls = stats.hits + stats.served - (this.callsBefore.get(id) ?? stats.hits + stats.served);
    return make(
      "tr",
      "",
      make("td", "", button),
      make("td", "", conns),
      make("td", "", number.format(stats.streams)),
      make("td", stats.waiting > 0 ? "some" : "", number.format(stats.waiting)),
      make("td", "", seconds ? number.format(calls / seconds) : "–"),
      make("td", "", number.format(stats.dialed)),
    );
  }
}

function limitsOf({ limits, keys }) {
  const names = [
    "maxConns",
    "maxKeyConns",
    "maxStreams",
    "maxWaiters",
    "waitTimeoutMs",
    "capacity",
    "keyCapacity",
    "minIdle",
  ];
  const set = names.filter((name) => limits[name]).map((name) => `${name} ${number.format(limits[name])}`);
  return [`${number.format(keys)} ${keys === 1 ? "key" : "keys"}`, ...set].join(" · ");
}

/** Puts items into a list, or says that there are none. */
function fill(list, items) {
  list.replaceChildren(...(items.length > 0 ? items : [make("li", "", "none yet")]));
}

function line({ at, what, times }, now) {
  return make(
    "li",
    "",
    make("time", "", ago(now - at)),
    make("span", "", times > 1 ? `${what} (${times} times)` : what),
  );
}

function reason([name, count], commonest) {
  const bar = make("i");
  bar.style.width = `${(100 * count) / commonest}%`;
  return make("li", "", make("span", "", name), bar, make("b", "", number.format(count)));
}

function ago(ms) {
  return ms < 60_000 ? `${Math.round(ms / 1000)} s ago` : `${Math.round(ms / 60_000)} min ago`;
}

/** What a caller of a key would meet now. */
async function explain(pool, key, name) {
  const response = await fetch(`explain?${new URLSearchParams({ pool, key })}`);
  document.getElementById("explain-key").textContent = name;
  document.getElementById("explain-text").textContent = await response.text();
  document.getElementById("explain").showModal();
}

const status = document.getElementById("status");
const sections = [];
const events = new EventSource("events");
events.addEventListener("message", ({ data }) => {
  JSON.parse(data).forEach((snapshot, i) => {
    if (sections[i] === undefined) {
      sections[i] = new PoolSection(i);
      document.getElementById("pools").append(sections[i].element);
    }
    sections[i].update(snapshot);
  });
  status.className = "";
  status.textContent = "live, one picture a second";
});
events.addEventListener("error", () => {
  status.className = "lost";
  status.textContent = "the process does not answer; trying again";
});
