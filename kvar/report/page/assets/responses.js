// Sampled responses, every token coloured by the teacher's gap; the token under pointer or cursor is read out.
(function () {
  "use strict";
  var holder = document.getElementById("responses-data");
  if (!holder) { return; }
  var data = JSON.parse(holder.textContent);
  var root = document.getElementById("responses"), box = document.getElementById("responses-list");
  var runs = document.getElementById("responses-run"), steps = document.getElementById("responses-step");
  var said = document.getElementById("responses-said"), detail = document.getElementById("responses-detail");
  var ENDS = [0, 1, 2, 4, 8];

  // 0 for no gap, 1 to 5 for wider and wider ones, "below" for less than none (a soft value).
  function shade(gap) {
    if (gap < -1e-6) { return "below"; }
    if (gap <= 1e-6) { return "0"; }
    return String(ENDS.filter(function (end) { return gap > end; }).length);
  }

  function make(tag, className, text) {
    var element = document.createElement(tag);
    element.className = className;
    if (text !== undefined) { element.textContent = text; }
    return element;
  }

  function number(x) { return x === null ? "not recorded" : typeof x === "number" ? x.toFixed(3) : x; }

  function tell(response, t) {
    var gap = response.gap[t];
    var odds = typeof gap === "number" && gap > 1e-6
      ? " (the teacher holds it " + Number(Math.exp(gap).toPrecision(2)) + " times less likely than its favourite)"
      : gap === 0 ? " (the teacher's favourite)" : "";
    return JSON.stringify(response.text[t]) + ", token " + (t + 1) + " of " + response.length + ": gap " + number(gap)
      + odds + ", q " + number(response.q[t]) + ", V " + number(response.v[t])
      + ", log-probability " + number(response.log_prob[t]);
  }

  function tokens(response) {
    var line = make("p", "tokens");
    line.tabIndex = 0;
    line.setAttribute("aria-label", "response; left and right arrow keys read out its tokens");
    var spans = response.text.map(function (text, t) {
      var span = make("span", "token gap-" + shade(response.gap[t]), text.replace(/\n/g, "⏎\n") || "◌");
      span.title = tell(response, t);
      span.addEventListener("mouseenter", function () { show(t); });
      span.addEventListener("click", function () { show(t); });
      line.appendChild(span);
      return span;
    });
    var at = -1;
    function show(t) {
      box.querySelectorAll(".chosen").forEach(function (span) { span.classList.remove("chosen"); });
      at = t;
      spans[t].classList.add("chosen");
      detail.textContent = tell(response, t);
    }
    line.addEventListener("keydown", function (event) {
      var move = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (!move) { return; }
      event.preventDefault();
      show(Math.min(spans.length - 1, Math.max(0, at + move)));
    });
    return line;
  }

  function draw() {
    var shown = data.shown[Number(steps.value)], responses = shown[4];
    box.replaceChildren.apply(box, responses.map(function (response) {
      var total = response.gap.reduce(function (sum, gap) { return sum + (typeof gap === "number" ? gap : 0); }, 0);
      var cut = response.text.length < response.length;
      var one = make("div", "response");
      one.appendChild(make("p", "about", "prompt " + response.prompt + ", response " + response.trajectory + ": "
        + response.length + " tokens" + (cut ? " (the first " + response.text.length + " shown)" : "")
        + (response.finished ? "" : ", cut at the length limit") + ", gaps sum to " + total.toFixed(2)));
      one.appendChild(tokens(response));
      return one;
    }));
    said.textContent = responses.length + " of " + shown[2] + " responses recorded at this step"
      + (data.runs < data.recorded ? "; " + data.runs + " of " + data.recorded + " runs with responses can be chosen" : "")
      + (shown[3] ? "." : ". No tokenizer was found beside the run, so tokens are shown as their numbers.");
    detail.textContent = "Point at a token, or use the arrow keys in a response.";
  }

  function fill() {
    steps.replaceChildren();
    data.shown.forEach(function (shown, i) {
      if (shown[0] === runs.value) { steps.add(new Option(shown[1], i)); }
    });
    steps.selectedIndex = steps.options.length - 1;
    draw();
  }

  Array.from(new Set(data.shown.map(function (shown) { return shown[0]; }))).forEach(function (name) {
    runs.add(new Option(name, name));
  });
  runs.addEventListener("change", fill);
  steps.addEventListener("change", draw);
  root.hidden = false;
  fill();
}());
