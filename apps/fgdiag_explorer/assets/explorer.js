// The address holds every choice: controls write it, and it writes the controls. Nothing else is remembered.
(function () {
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const still = () => window.dash_clientside.no_update;

  // Sliders know numbers: the names of their steps are told with the page, or stand on the element around them.
  function known(controls, pages) {
    const { defaults = {}, steps: told = {}, ofOne = [] } = controls || {};
    const steps = { ...told };
    for (const one of document.querySelectorAll("[data-steps-of]")) steps[one.dataset.stepsOf] = JSON.parse(one.dataset.steps);
    const last = Object.fromEntries(Object.entries(steps).map(([key, names]) => [key, names[names.length - 1]]));
    return { defaults: { ...defaults, ...last, ...without(defaults), run: pages.runs[0] }, steps, ofOne };
  }

  const without = (defaults) => Object.fromEntries(Object.entries(defaults).filter(([, value]) => value !== null));
  // Controls of one image are only there while one is shown.
  const shownOnce = (key) => document.getElementById(JSON.stringify({ key, type: "choice" })) !== null;

  function pageOf(pathname, pages) {
    const last = pathname.split("/").pop();
    return pages.pages.includes(last) ? last : pages.pages[0];
  }

  // What the address says of one control.
  function read(search, key, fallback) {
    const given = new URLSearchParams(search);
    if (!given.has(key)) return fallback;
    return Array.isArray(fallback) ? given.getAll(key).filter((value) => value !== "") : given.get(key);
  }

  // The address with these choices; what is as it is anyway is left out, to keep links short.
  function written(search, chosen, defaults) {
    const next = new URLSearchParams(search);
    for (const [key, value] of Object.entries(chosen)) {
      next.delete(key);
      if (value === null || value === undefined || same(value, defaults[key])) continue;
      if (Array.isArray(value)) (value.length ? value : [""]).forEach((one) => next.append(key, one));
      else if (value !== "" || defaults[key]) next.append(key, value);
    }
    const text = next.toString();
    return text ? "?" + text : "";
  }

  function go(href) {
    window.history.pushState(null, "", href);
    window.dispatchEvent(new PopStateEvent("popstate"));
  }

  // Which choices are others than in the address before.
  let searchBefore = "";
  function changedIn(search) {
    const [one, other] = [new URLSearchParams(searchBefore), new URLSearchParams(search)];
    searchBefore = search;
    return [...new Set([...one.keys(), ...other.keys()])].filter((key) => !same(one.getAll(key), other.getAll(key)));
  }

  const steps = (key, value, names) => (names[key] && typeof value === "number" ? names[key][value] : value);

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.fgdiag = {
    // Which page of which run an address means, and what else it says.
    place(pathname, search, before, pages) {
      const page = pageOf(pathname, pages);
      const named = read(search, "run", pages.runs[0]);
      const run = pages.runs.includes(named) ? named : pages.runs[0];
      document.title = page[0].toUpperCase() + page.slice(1) + " · " + run + " · fgdiag";
      const brand = document.querySelector(".brand");
      if (brand) brand.setAttribute("href", "overview?" + new URLSearchParams({ run }).toString());
      const changed = changedIn(search);
      if (before && before.page === page && before.run === run) return [still(), { search, changed }];
      if (before && before.page !== page) window.scrollTo(0, 0);
      window.dash_clientside.set_props({ type: "choice", key: "run" }, { value: run });
      return [{ page, run }, still()];
    },

    // Another run begins without choices, for they may mean nothing there. Controls of a page that is being left
    // are not asked any more.
    toAddress(values, ids, controls, shown, pages, search) {
      const { defaults, steps: names, ofOne } = known(controls, pages);
      const chosen = {};
      ids.forEach((id, at) => (chosen[id.key] = steps(id.key, values[at], names)));
      if (chosen.run !== read(search, "run", defaults.run)) return written("", { run: chosen.run }, {});
      if (!shown || shown.page !== pageOf(window.location.pathname, pages) || shown.run !== chosen.run) return still();
      const different = Object.keys(chosen).filter((key) => {
        const now = read(search, key, defaults[key]);
        const [one, other] = [chosen[key] ?? null, now ?? null];
        return Array.isArray(one) ? !same([...one].sort(), [...(other || [])].sort()) : one !== other && (one || other);
      });
      if (!different.length) return still();
      const moved = { ...chosen, page: null };
      if (different.some((key) => !ofOne.includes(key))) moved.image = null; // other images are meant
      return written(search, moved, defaults);
    },

    // A number that this window draws, so that what it asked for is told to it alone.
    me(_pages, drawn) {
      if (drawn) return still();
      return [...window.crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
    },

    toControls(choices, controls, pages) {
      const { defaults, steps: names, ofOne } = known(controls, pages);
      const here = (key) => key === "level" || !ofOne.includes(key) || shownOnce(key);
      for (const key of Object.keys(defaults).filter(here)) {
        const value = read(choices.search, key, defaults[key]);
        const at = names[key] ? Math.max(0, names[key].indexOf(value)) : value;
        window.dash_clientside.set_props({ type: "choice", key }, { value: at });
      }
    },

    // A cell of the matrix: a pair of classes, or of kinds to open. The address says it, and the controls follow.
    cell(clicked, figure) {
      const at = clicked && clicked.points && clicked.points[0];
      const { classes, level } = (figure && figure.layout.meta) || {};
      if (!at || !classes) return;
      const [truth, said] = [classes[at.y], classes[at.x]];
      const next = new URLSearchParams(window.location.search);
      if (level === "coarse") {
        next.set("level", "fine");
        next.delete("kind");
        new Set([truth, said]).forEach((kind) => next.append("kind", kind));
      } else {
        if (truth === said) return;
        next.set("truth", truth);
        next.set("said", said);
      }
      go("?" + next.toString());
    },

    // What was drawn around points, as corners in the address.
    lasso(selected) {
      if (!selected || !(selected.lassoPoints || selected.range)) return;
      const inside = selected.lassoPoints || {
        x: [selected.range.x[0], selected.range.x[1], selected.range.x[1], selected.range.x[0]],
        y: [selected.range.y[0], selected.range.y[0], selected.range.y[1], selected.range.y[1]],
      };
      const every = Math.ceil(inside.x.length / 60);
      const corners = inside.x.map((x, at) => [x, inside.y[at]]).filter((_, at) => at % every === 0);
      const next = new URLSearchParams(window.location.search);
      next.set("around", corners.map((corner) => corner.map((one) => one.toFixed(3)).join("_")).join("~"));
      go("?" + next.toString());
    },

    // A point of the map: its image.
    point(clicked) {
      const at = clicked && clicked.points && clicked.points[0];
      if (!at || at.customdata === undefined) return;
      const run = new URLSearchParams(window.location.search).get("run");
      const row = Array.isArray(at.customdata) ? at.customdata[0] : at.customdata;
      go("images?" + new URLSearchParams({ ...(run ? { run } : {}), image: row }).toString());
    },
  };

  // Links inside the explorer change the page without loading it anew.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.hasAttribute("download") || link.target || link.origin !== window.location.origin) return;
    if (link.getAttribute("href").startsWith("#")) {
      event.preventDefault();
      const place = document.querySelector(link.getAttribute("href"));
      if (place) place.focus();
      return;
    }
    event.preventDefault();
    go(link.href);
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.download) {
      const drawn = button.closest("figure").querySelector(".js-plotly-plot");
      const { width, height } = drawn.getBoundingClientRect();
      const format = button.dataset.download;
      const scale = format === "png" ? 2 : 1;
      window.Plotly.downloadImage(drawn, { format, filename: button.dataset.name, width, height, scale });
    } else if (button.id === "copy") {
      const link = window.location.href;
      try {
        await navigator.clipboard.writeText(link);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy link"), 1500);
      } catch {
        window.prompt("The address of this view", link); // browsers copy for https and this machine alone
      }
    } else if (button.id === "scheme") {
      const page = document.documentElement;
      const scheme = page.getAttribute("data-mantine-color-scheme") === "dark" ? "light" : "dark";
      page.setAttribute("data-mantine-color-scheme", scheme);
      window.localStorage.setItem("mantine-color-scheme-value", scheme);
    }
  });

  // Names of sites stand slanted: of those that would overlap, the first is kept. All of them are in `layout.meta`.
  function fit(box) {
    const { meta, xaxis, font } = box.layout || {};
    const width = box.clientWidth - 90;
    const cramped = meta && meta.classes && width > 0 && width < 420;
    if (cramped && box.data[0].showscale !== false) { // a matrix needs the room of its names; a touch tells them
      window.Plotly.update(box, { showscale: false }, { "yaxis.showticklabels": false, "yaxis.title.text": "" });
      return;
    }
    if (!meta || !meta.tickvals || width <= 0) return;
    const range = (box._fullLayout && box._fullLayout.xaxis.range) || xaxis.range;
    const step = width / (range[1] - range[0]);
    const small = width < 520 ? 11 : 13; // of the names of sites: a smaller one leaves room for more of them
    const apart = (meta.apart * small) / 13;
    const kept = [];
    meta.tickvals.forEach((x, at) => {
      if (!kept.length || (x - meta.tickvals[kept[kept.length - 1]]) * step >= apart) kept.push(at);
    });
    const tickvals = kept.map((at) => meta.tickvals[at]);
    const size = width < 420 ? 11 : 13;
    if (same(tickvals, [...xaxis.tickvals]) && font && font.size === size) return;
    const ticktext = kept.map((at) => meta.ticktext[at]);
    window.Plotly.relayout(box, { "xaxis.tickvals": tickvals, "xaxis.ticktext": ticktext, "font.size": size, "xaxis.tickfont.size": small });
  }
  new MutationObserver(() => {
    const here = document.querySelector("nav a[aria-current]:not([data-shown])");
    if (here) {
      here.setAttribute("data-shown", "");
      here.scrollIntoView({ inline: "center", block: "nearest" }); // on a phone the row of pages is wider than the screen
    }
    for (const box of document.querySelectorAll(".js-plotly-plot:not([data-fitted])")) {
      if (!box.on) continue;
      box.setAttribute("data-fitted", "");
      box.on("plotly_afterplot", () => fit(box));
      fit(box);
    }
  }).observe(document.documentElement, { childList: true, subtree: true });

  // Arrows lead from image to image, Escape back to all of them.
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select, [role=slider], [role=listbox], [role=grid], [role=treegrid]")) return;
    if (event.metaKey || event.ctrlKey || event.altKey) return;
    const wanted = { ArrowLeft: "previous", ArrowRight: "next", Escape: "back" }[event.key];
    const link = wanted && document.querySelector(`a[data-key="${wanted}"]`);
    if (link) link.click();
  });
})();
