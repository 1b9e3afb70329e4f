// Sorts and filters the tables, replaces the still charts by live ones, and lets both follow the arms that are chosen.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const element = (tag, properties) => Object.assign(document.createElement(tag), properties);
  document.documentElement.classList.add("scripts");

  // ---- What the reader chose, kept over a reload.
  const place = `report:${location.pathname}`;
  const read = () => { try { return JSON.parse(sessionStorage.getItem(place)) ?? {}; } catch { return {}; } };
  const kept = read();
  const keep = () => { try { sessionStorage.setItem(place, JSON.stringify(kept)); } catch { /* not allowed here */ } };

  // ---- Tables: a button in each header sorts, a field filters.
  function value(row, column) {
    const cell = row.cells[column], number = cell.dataset.value;
    if (number !== undefined) return Number(number);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : text;
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null); // what is not there comes last
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  }

  function sort(table, column, order) {
    const body = table.tBodies[0], sign = order === "descending" ? -1 : 1;
    const rows = [...table.original];
    if (order !== "none") rows.sort((a, b) => compare(value(a, column), value(b, column), sign));
    body.append(...rows);
    table.classList.toggle("sorted", order !== "none");
    all("thead th", table).forEach((head, i) => head.setAttribute("aria-sort", i === column ? order : "none"));
  }

  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  for (const table of all(".block table")) {
    table.original = [...table.tBodies[0].rows];
    all("thead th", table).forEach((head, column) => {
      const button = element("button", { type: "button", textContent: head.textContent, title: "Sort" });
      button.addEventListener("click", () => sort(table, column, NEXT[head.getAttribute("aria-sort") ?? "none"]));
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
    });
    if (table.original.length < 7) continue;
    const bar = table.closest(".block").querySelector(".bar"), title = bar.querySelector(".part").textContent;
    const field = element("input", { type: "search", className: "filter", placeholder: "filter rows" });
    field.setAttribute("aria-label", `Filter the rows of: ${title}`);
    table.count = element("output");
    field.addEventListener("input", () => { table.wanted = field.value.toLowerCase(); show(table); });
    bar.querySelector(".part").after(table.count, field);
  }

  function show(table, hidden = table.hiddenArms ?? new Set()) {
    table.hiddenArms = hidden;
    const rows = [...table.tBodies[0].rows], wanted = table.wanted ?? "";
    for (const row of rows) {
      row.hidden = hidden.has(row.dataset.arm) || !row.textContent.toLowerCase().includes(wanted);
    }
    const left = rows.filter((row) => !row.hidden).length;
    if (table.count) table.count.textContent = left < rows.length ? `${left} of ${rows.length}` : "";
  }

  // ---- Charts.
  function rows(packed) {
    const columns = Object.entries(packed).map(([key, column]) => [
      key, column.levels ? column.codes.map((code) => column.levels[code]) : column,
    ]);
    const length = columns.length ? columns[0][1].length : 0;
    return Array.from({ length }, (_, i) => Object.fromEntries(columns.map(([key, column]) => [key, column[i]])));
  }

  function smoothed(data, reach) {
    const mean = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;
    const curves = Map.groupBy ? Map.groupBy(data, (row) => row.arm) : grouped(data);
    return [...curves.values()].flatMap((curve) => curve.map((row, i) => {
      const width = Math.min(reach, i, curve.length - 1 - i); // as far to the left as to the right
      const near = curve.slice(i - width, i + width + 1);
      return { ...row, ...Object.fromEntries(["mean", "low", "high"].map((k) => [k, mean(near.map((one) => one[k]))])) };
    }));
  }

  function grouped(data) {
    const groups = new Map();
    for (const row of data) groups.set(row.arm, [...(groups.get(row.arm) ?? []), row]);
    return groups;
  }

  function chosen(given, chart, choice) {
    const spec = structuredClone(given);
    const curves = chart.dataset.name.startsWith("curves-");
    for (const name of Object.keys(spec.datasets)) {
      let data = rows(spec.datasets[name]).filter((row) => !choice.hidden.includes(row.arm));
      if (curves && choice.smooth > 0 && data.length && "mean" in data[0]) data = smoothed(data, choice.smooth);
      if (curves && choice.scale === "log" && data.length && "mean" in data[0]) {
        data = data.filter((row) => row.mean > 0);
        const least = Math.min(...data.map((row) => row.mean));
        for (const row of data) row.low = Math.max(row.low, least / 2);
      }
      spec.datasets[name] = data;
    }
    const y = [spec, ...(spec.layer ?? [])].map((one) => one.encoding?.y).find((one) => one?.field);
    if (spec.height?.step && y) { // as many rows as are left
      const named = Object.values(spec.datasets).flat().map((row) => row[y.field]).filter((name) => name !== undefined);
      spec.height = spec.height.step * Math.max(1, new Set(named).size);
    }
    if (!curves) return spec;
    if (choice.along === "seconds") spec.layer = spec.layer.filter((layer) => layer.mark.type !== "rule");
    for (const { encoding } of spec.layer) {
      if (choice.along === "seconds") Object.assign(encoding.x, { field: "seconds", title: "seconds of training" });
      if (choice.scale && encoding.y) {
        encoding.y.scale = choice.scale === "log" ? { type: "log" } : { type: "linear", zero: false };
      }
    }
    return spec;
  }

  // What is nearest to the pointer stands for a point, its datum; of texts in tooltips Vega-Lite 6 forgets that.
  function corrected(vega) {
    for (const { type, encode } of vega.marks) {
      const tooltip = type === "path" && encode?.update?.tooltip;
      if (tooltip) tooltip.signal = tooltip.signal.replace(/(?<!datum\.)datum\[/g, "datum.datum[");
    }
    return vega;
  }

  async function draw(study, chart) {
    const target = element("div", { className: "live" });
    try {
      chart.append(target);
      const spec = chosen(chart.given, chart, study.choice);
      const { view } = await vegaEmbed(target, spec, { renderer: "svg", actions: false, mode: "vega-lite", patch: corrected });
      chart.view?.finalize();
      all(".live", chart).forEach((one) => one === target || one.remove());
      chart.querySelector(".still").hidden = true;
      chart.view = view;
      if (chart.dataset.byArm) view.addSignalListener("near", (_, near) => light(study, near.arm?.[0] ?? ""));
    } catch (error) {
      target.remove(); // what stood there before is good enough
      console.warn(`${chart.dataset.name} stays as it is`, error);
    }
  }

  // A chart as it is seen now, in a file: the page's variables are put in place first.
  function saver(chart) {
    const button = element("button", { type: "button", className: "save", textContent: "SVG" });
    button.setAttribute("aria-label", `Save the chart ${chart.dataset.name} as SVG`);
    button.addEventListener("click", () => {
      const svg = chart.querySelector(".live svg, .still svg"), styles = getComputedStyle(chart);
      const text = new XMLSerializer().serializeToString(svg)
        .replace(/var\((--[\w-]+)\)/g, (_, name) => styles.getPropertyValue(name).trim());
      const link = element("a", { download: `${chart.dataset.name}.svg` });
      link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      link.click();
      URL.revokeObjectURL(link.href);
    });
    return button;
  }

  function light(study, arm) {
    if (study.lit === arm) return;
    study.lit = arm;
    for (const one of all("[data-arm]", study.section)) one.classList.toggle("lit", one.dataset.arm === arm);
    for (const chart of study.charts) if (chart.dataset.byArm) chart.view?.signal("lit", arm).runAsync();
  }

  async function update(study, charts = study.charts) {
    const hidden = new Set(study.choice.hidden);
    for (const item of all(".arms li", study.section)) {
      const off = hidden.has(item.dataset.arm);
      item.classList.toggle("off", off);
      item.querySelector("input").checked = !off;
    }
    for (const table of all("table", study.section)) show(table, hidden);
    keep();
    const turn = (study.turn = (study.turn ?? 0) + 1);
    for (const chart of charts) if (turn === study.turn) await draw(study, chart);
  }

  async function start(section) {
    const charts = all(".chart", section).filter((chart) => chart.querySelector("script"));
    for (const chart of charts) {
      chart.given = JSON.parse(chart.querySelector("script").textContent);
      chart.parentElement.querySelector("figcaption")?.append(" ", saver(chart));
    }
    const choice = (kept[section.id] ??= { hidden: [], scale: "", along: "epoch", smooth: 0 });
    const study = { section, charts, choice };
    const items = all(".arms li", section), keys = items.map((item) => item.dataset.arm);
    const hide = (hidden) => { choice.hidden = hidden; update(study); };
    for (const item of items) {
      const key = item.dataset.arm;
      item.querySelector("input").addEventListener("change", ({ target }) =>
        hide(target.checked ? choice.hidden.filter((one) => one !== key) : [...choice.hidden, key]));
      item.addEventListener("dblclick", () => hide(keys.filter((one) => one !== key)));
    }
    for (const one of all("[data-arm]", section)) {
      one.addEventListener("pointerenter", () => light(study, one.dataset.arm));
      one.addEventListener("pointerleave", () => light(study, ""));
      one.addEventListener("focusin", () => light(study, one.dataset.arm));
      one.addEventListener("focusout", () => light(study, ""));
    }
    for (const button of all("[data-arms]", section)) {
      button.addEventListener("click", () => hide(button.dataset.arms === "all" ? [] : keys));
    }
    for (const select of all("[data-choice]", section)) {
      select.value = String(choice[select.dataset.choice]);
      select.addEventListener("change", () => {
        choice[select.dataset.choice] = select.dataset.choice === "smooth" ? Number(select.value) : select.value;
        update(study, charts.filter((chart) => chart.dataset.name.startsWith("curves-")));
      });
    }
    await update(study);
  }

  (async () => {
    for (const section of all(".study")) await start(section);
    document.documentElement.dataset.ready = "yes";
  })();
})();
