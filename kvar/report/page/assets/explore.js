// The interactive plot: choosers, drawing, and the table of what is drawn.
(function () {
  "use strict";
  var holder = document.getElementById("explore-data");
  if (!holder) { return; }
  var data = JSON.parse(holder.textContent), table = new window.kvarTable(data);
  var plot = document.getElementById("explore-plot"), note = document.getElementById("explore-note");
  var box = document.getElementById("explore-controls"), numbers = document.getElementById("explore-table");
  var MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
  var DASHES = ["solid", "longdash", "dot", "dashdot", "dash", "longdashdot"];
  var controls = {};

  function chooser(name, label, options) {
    var wrap = document.createElement("label"), select = document.createElement("select");
    wrap.textContent = label;
    select.name = name;
    options.forEach(function (option) { select.add(new Option(option[1], option[0])); });
    select.addEventListener("change", function () { paint(true); });
    wrap.appendChild(select);
    box.appendChild(wrap);
    wrap.hidden = options.length < 2;
    controls[name] = select;
  }

  function facet(name, all) {
    var values = data.facets[name].map(function (value) { return [value, value || "-"]; });
    return values.length > 1 && all ? [["", all]].concat(values) : values;
  }

  function build() {
    var known = data.statistics.map(function (s) { return s[0]; });
    var steps = Array.from(new Set(data.blocks.map(function (b) { return b[1]; }))).sort(function (a, b) { return a - b; });
    var sizes = new Set(data.lines.map(function (line) { return line.parameters; }));
    var against = [["K", "K"]];
    if (steps.length > 1) { against.push(["step", "training step"]); }
    if (sizes.size > 1) { against.push(["size", "student size"]); }
    var seeds = data.facets.seed.filter(function (s) { return s !== data.mean; });
    var means = seeds.length < data.facets.seed.length;
    chooser("statistic", "Statistic", known.map(function (name, i) { return [i, name.replace(/_/g, " ")]; }));
    chooser("against", "Against", against);
    chooser("task", "Task", facet("task"));
    chooser("student", "Student", facet("student", "all"));
    chooser("method", "Method", facet("method", "all"));
    chooser("seed", "Seed", (means ? [[data.mean, data.mean]] : [])
      .concat(seeds.length > 1 || means ? [["each", "each"]] : [])
      .concat(seeds.map(function (s) { return [s, s || "-"]; })));
    chooser("step", "Step", [["last", "last of each run"]].concat(steps.map(function (s) { return [s, s]; })));
    chooser("group", "Parameters", data.groups.map(function (g) { return [g, g]; }));
    chooser("kernel", "Kernel", [["", "all"]].concat(data.kernels.map(function (k, i) { return [i, k[0]]; })));
    chooser("scale", "Scale", [["auto", "as suits"], ["linear", "linear"], ["log", "log"]]);
    controls.statistic.value = Math.max(0, known.indexOf("efficiency"));
    ["student", "method"].forEach(function (name) {  // begin with as many lines as can be told apart
      if (table.linesOf(choice()).length > data.palette.length + 1) { controls[name].selectedIndex = 1; }
    });
  }

  function choice() {
    var found = {};
    Object.keys(controls).forEach(function (name) { found[name] = controls[name].value; });
    return found;
  }

  function short(x) {
    if (!isFinite(x)) { return isNaN(x) ? "?" : x > 0 ? "∞" : "-∞"; }
    var text = Number(x.toPrecision(3));
    return Math.abs(text) >= 1e5 || (text !== 0 && Math.abs(text) < 1e-3) ? x.toExponential(2) : String(text);
  }

  function text(s) { return String(s).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }

  function interval(point) {
    return isNaN(point.low) || isNaN(point.high) ? "interval unknown" : short(point.low) + " to " + short(point.high);
  }

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function trace(one, i, count, chosen, name, log, ends) {
    var paper = colour("--paper"), ink = colour("--ink"), x = [], y = [], up = [], down = [], hover = [], cuts = [];
    var shift = chosen.against === "K" ? (i - (count - 1) / 2) * Math.min(0.05, 0.5 / count) : 0;
    one.points.forEach(function (p, at) {
      if (log && !(p.value > 0)) { return; }
      if (at && !(p.joined && one.points[at - 1].joined)) {
        [x, y, up, down, hover].forEach(function (list) { list.push(null); });
      }
      x.push(p.x + shift);
      y.push(p.value);
      up.push(isNaN(p.high) ? 0 : Math.min(p.high, ends[1]) - p.value);
      down.push(isNaN(p.low) ? 0 : p.value - Math.max(p.low, ends[0]));
      if (p.high > ends[1]) { cuts.push([p.x + shift, ends[1], "triangle-up"]); }
      if (p.low < ends[0]) { cuts.push([p.x + shift, ends[0], "triangle-down"]); }
      hover.push(["<b>" + text(p.place) + "</b>", text(p.kernel) + ", " + text(name),
        "<b>" + short(p.value) + "</b> (" + interval(p) + ")",
        "n = " + p.n + ", step " + p.step + ", parameters: " + text(chosen.group)].join("<br>"));
    });
    var shade = data.palette[one.order % data.palette.length];
    shade = shade === "#000000" ? ink : shade;
    var arrows = {type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
      x: cuts.map(function (cut) { return cut[0]; }), y: cuts.map(function (cut) { return cut[1]; }),
      marker: {color: shade, size: 7, symbol: cuts.map(function (cut) { return cut[2]; })}};
    var line = {type: "scatter", mode: "lines+markers", name: text(one.label), x: x, y: y, text: hover,
      hovertemplate: "%{text}<extra></extra>",
      line: {color: shade, width: 2, dash: DASHES[one.order % DASHES.length]},
      marker: {color: shade, size: 9, symbol: MARKERS[one.order % MARKERS.length], line: {color: paper, width: 1}},
      error_y: {type: "data", symmetric: false, array: up, arrayminus: down, color: shade, thickness: 1.3,
        width: cuts.length ? 0 : 3}};
    return cuts.length ? [line, arrows] : [line];  // an interval that the axis cuts ends in an arrow, without a cap
  }

  // The axis's ends: all values, and all finite interval ends, within a hundredfold span where these go astray.
  function range(series, log) {
    var values = [], all = [];
    series.forEach(function (one) {
      one.points.forEach(function (p) {
        if (log && !(p.value > 0)) { return; }
        values.push(p.value);
        [p.value, p.low, p.high].forEach(function (v) { if (isFinite(v) && (!log || v > 0)) { all.push(v); } });
      });
    });
    var low = Math.min.apply(null, values), high = Math.max.apply(null, values);
    var least = Math.min.apply(null, all), most = Math.max.apply(null, all);
    if (log) { return [Math.max(least, low / 100), Math.min(most, high * 100)]; }
    var span = 3 * Math.max(high - low, Math.abs(high), Math.abs(low)) || 1;
    return [Math.max(least, low - span), Math.min(most, high + span)];
  }

  function axis(title, more) {
    return Object.assign({title: {text: title}, gridcolor: colour("--line"), zerolinecolor: colour("--rule"),
      linecolor: colour("--rule"), ticks: "outside", automargin: true, showline: true}, more);
  }

  function layout(chosen, found, statistic, log, ends) {
    var name = statistic[0].replace(/_/g, " "), narrow = plot.clientWidth < 600;
    var x = chosen.against === "step" ? axis("training step")
      : chosen.against === "size" ? axis("parameters of the student", {type: "log"})
        : axis("K", {zeroline: false, tickangle: narrow && found.places.some(long) ? -45 : "auto", tickvals: found.places.map(function (p) { return p.x; }),
          ticktext: found.places.map(function (p) { return text(p.text); })});
    var longest = Math.max.apply(null, found.series.map(function (s) { return s.label.length; }).concat([1]));
    var columns = Math.max(1, Math.floor((plot.clientWidth - 60) / (70 + 8 * longest)));
    var above = found.series.length > 1 ? 22 * Math.ceil(found.series.length / columns) : 0;
    function long(place) { return place.text.length > 4; }
    var pad = log ? 0.06 * Math.max(0.5, Math.log10(ends[1] / ends[0])) : 0.06 * (ends[1] - ends[0] || 1);
    var reach = log ? [Math.log10(ends[0]) - pad, Math.log10(ends[1]) + pad] : [ends[0] - pad, ends[1] + pad];
    return {xaxis: x, yaxis: axis(text(name), {type: log ? "log" : "linear", range: reach, exponentformat: "power"}),
      font: {family: "system-ui, sans-serif", size: narrow ? 12 : 14, color: colour("--ink")},
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      hoverlabel: {bgcolor: colour("--card"), bordercolor: colour("--rule"), font: {color: colour("--ink")}, align: "left"},
      showlegend: found.series.length > 1, legend: {orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", maxheight: 1},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent")},
      margin: {l: 50, r: 10, t: (narrow ? 8 : 30) + above, b: 40}, height: (narrow ? 380 : 460) + above, autosize: true};
  }

  function list(found, name) {
    var whole = document.createElement("table"), head = whole.createTHead().insertRow();
    whole.className = "sortable";
    ["run", "kernel", "step", "n", name, "low", "high"].forEach(function (title, i) {
      var cell = document.createElement("th"), button = document.createElement("button");
      cell.scope = "col";
      cell.className = i > 1 ? "number" : "";
      button.type = "button";
      button.textContent = title;
      cell.appendChild(button);
      head.appendChild(cell);
    });
    var body = whole.createTBody();
    found.series.forEach(function (one) {
      one.points.forEach(function (p) {
        var row = body.insertRow();
        [p.place, p.kernel, p.step, p.n, p.value, p.low, p.high].forEach(function (value, i) {
          var cell = row.insertCell();
          cell.className = i > 1 ? "number" : "text";
          cell.textContent = i > 3 ? (isNaN(value) ? "-" : short(value)) : String(value);
          if (i > 1 && isFinite(parseFloat(value))) { cell.setAttribute("data-v", String(parseFloat(value))); }
        });
      });
    });
    numbers.replaceChildren(whole);
    window.kvarSortable(whole);
  }

  // Draw what is chosen; where only the page's size or colours changed, the table below stays as it was sorted.
  function paint(anew) {
    var chosen = choice(), found = table.series(chosen), statistic = data.statistics[chosen.statistic];
    var values = [].concat.apply([], found.series.map(function (s) { return s.points; })).map(function (p) { return p.value; });
    var positive = values.some(function (v) { return v > 0; });
    var suits = statistic[2] && values.every(function (v) { return v > 0; });
    var log = chosen.scale === "auto" ? suits : chosen.scale === "log" && positive;
    var dropped = log ? values.filter(function (v) { return !(v > 0); }).length : 0;
    controls.kernel.parentNode.hidden = chosen.against === "K";
    controls.step.parentNode.hidden = chosen.against === "step" || controls.step.options.length < 3;
    var ends = values.length ? range(found.series, log) : [0, 1];
    if (log && !(ends[0] > 0)) { ends = [0.1, 10]; }
    var traces = found.series.map(function (one, i) {
      return trace(one, i, found.series.length, chosen, statistic[0].replace(/_/g, " "), log, ends);
    });
    traces = [0, 1].flatMap(function (part) {  // the lines, then the arrows of those that have some
      return traces.map(function (parts) { return parts[part]; }).filter(Boolean);
    });
    window.Plotly.react(plot, traces, layout(chosen, found, statistic, log, ends),
      {responsive: true, displaylogo: false, displayModeBar: plot.clientWidth < 600 ? false : "hover",
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]});
    if (!anew) { return; }
    list(found, statistic[0].replace(/_/g, " "));
    note.textContent = statistic[1] + ". Bars are 95 % intervals, with an arrow where they go on"
      + (chosen.seed === data.mean ? "; of a mean over seeds, from the spread among them." : ".")
      + (values.length ? "" : " Nothing was measured for this choice.")
      + (dropped ? " " + dropped + " values at or below zero have no place on a log scale." : "")
      + (found.left ? " " + found.left + " further lines are left out; choose a student, a method or a kernel." : "");
  }

  var waiting = 0;
  document.getElementById("explore").hidden = false;
  build();
  paint(true);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { paint(false); });
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () { paint(false); }, 150);
  });
}());
