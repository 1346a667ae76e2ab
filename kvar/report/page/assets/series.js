// From the data of the page to the lines of a plot: what is chosen, what it is called, where its points stand.
(function () {
  "use strict";
  var MOST_LINES = 24;
  var FACETS = ["task", "student", "method", "seed"];

  function Table(data) {
    this.data = data;
    this.blocks = new Map();
    this.steps = new Map();
    data.blocks.forEach(function (block) {
      this.blocks.set(block.slice(0, 3).join("|"), block);
      var at = block[0] + "|" + block[2];
      this.steps.set(at, (this.steps.get(at) || []).concat(block[1]).sort(function (a, b) { return a - b; }));
    }, this);
    data.lines.forEach(function (line, i) { line.index = i; });
  }

  // The lines of a choice: {task, student, method} each a value or "" for all; seed a value, "each" or the mean.
  Table.prototype.linesOf = function (choice) {
    var mean = this.data.mean, chosen = this.data.lines.filter(function (line) {
      return ["task", "student", "method"].every(function (f) { return choice[f] === "" || line[f] === choice[f]; });
    });
    function isMean(line) { return line.seed === mean; }
    var averaged = new Set(chosen.filter(isMean).map(placeOf));
    return chosen.filter(function (line) {
      if (choice.seed === "each") { return !isMean(line); }
      if (choice.seed === mean) { return isMean(line) || !averaged.has(placeOf(line)); }
      return line.seed === choice.seed;
    });
  };

  function placeOf(line) { return [line.task, line.student, line.method].join("\n"); }

  // What tells some lines apart, in words.
  Table.prototype.labels = function (lines) {
    var vary = FACETS.filter(function (f) { return new Set(lines.map(function (line) { return line[f]; })).size > 1; });
    if (!vary.length) { vary = ["student", "method"]; }
    return lines.map(function (line) {
      var words = vary.map(function (f) {
        if (f === "student" && line.size) { return line.student + " (" + line.size + ")"; }
        return f === "seed" && /^\d+$/.test(line.seed) ? "seed " + line.seed : line[f];
      });
      return words.filter(Boolean).join(", ");
    });
  };

  // The estimate of one kernel: {value, low, high, n, step, kernel}; null where it was not measured.
  Table.prototype.estimate = function (line, step, group, statistic, kernel) {
    var steps = this.steps.get(line.index + "|" + group) || [];
    var at = step === "last" ? steps[steps.length - 1] : Number(step);
    var block = this.blocks.get([line.index, at, group].join("|"));
    var lists = block && block[3][statistic];
    if (!lists || lists[0][kernel] === null) { return null; }
    return {value: number(lists[0][kernel]), low: number(lists[1][kernel]), high: number(lists[2][kernel]),
      n: (Array.isArray(lists[3]) ? lists[3][kernel] : lists[3]) + (line.seed === this.data.mean ? " seeds" : ""), step: at, kernel: this.data.kernels[kernel][0], parameters: line.parameters};
  };

  function number(x) { return x === null ? NaN : x === "inf" ? Infinity : x === "-inf" ? -Infinity : x; }

  // Where each kernel stands: log2 K, the immediate one a step further, those without a K beyond, each by its name.
  Table.prototype.places = function () {
    var kernels = this.data.kernels, end = 0;
    kernels.forEach(function (kernel) { if (typeof kernel[1] === "number") { end = Math.max(end, Math.log2(kernel[1])); } });
    return kernels.map(function (kernel) {
      if (typeof kernel[1] === "number") { return {x: Math.log2(kernel[1]), text: String(kernel[1]), joined: true}; }
      end += 1;
      return {x: end, text: kernel[1] === "inf" ? "∞" : kernel[0], joined: kernel[1] === "inf"};
    });
  };

  // The series of a choice: {label, order, points: [{x, joined, ...estimate}]}, and how many were left out.
  Table.prototype.series = function (choice) {
    var table = this, lines = this.linesOf(choice), labels = this.labels(lines), places = this.places();
    var every = this.data.kernels.map(function (_, i) { return i; });
    var kernels = choice.kernel === "" ? every : [Number(choice.kernel)];
    var found = [];
    function add(label, order, points) {
      points = points.filter(Boolean);
      if (points.length) { found.push({label: label, order: order, points: points}); }
    }
    function at(line, step, kernel, x, joined) {
      var estimate = table.estimate(line, step, choice.group, choice.statistic, kernel);
      return estimate && Object.assign(estimate, {x: x === null ? estimate.parameters : x, joined: joined,
        place: FACETS.map(function (f) { return f === "seed" && /^\d+$/.test(line.seed) ? "seed " + line.seed : line[f]; })
          .filter(Boolean).join(" / ")});
    }
    if (choice.against === "K") {
      lines.forEach(function (line, i) {
        add(labels[i], i, every.map(function (e) { return at(line, choice.step, e, places[e].x, places[e].joined); }));
      });
    } else if (choice.against === "step") {
      lines.forEach(function (line, i) {
        kernels.forEach(function (e) {
          var name = table.data.kernels[e][0];
          var label = lines.length === 1 ? name : kernels.length === 1 ? labels[i] : labels[i] + ", " + name;
          var steps = table.steps.get(line.index + "|" + choice.group) || [];
          add(label, lines.length === 1 ? e : i, steps.map(function (step) { return at(line, step, e, step, true); }));
        });
      });
    } else {
      var bySize = lines.slice().sort(function (a, b) { return a.parameters - b.parameters; });
      kernels.forEach(function (e) {
        add(table.data.kernels[e][0], e, bySize.map(function (line) { return at(line, choice.step, e, null, false); }));
      });
    }
    return {series: found.slice(0, MOST_LINES), left: Math.max(0, found.length - MOST_LINES), places: places};
  };

  window.kvarTable = Table;
}());
