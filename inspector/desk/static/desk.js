// Renews banner and main part each second. Plain old script: it must run on an old tablet.
(function () {
  "use strict";
  var gone = document.getElementById("gone"), banner = document.getElementById("banner"), live = document.getElementById("live");
  var hold = document.getElementById("hold"), page = document.body.getAttribute("data-page");
  var heard = Date.now(), held = false, pressed = false, waiting = null;
  if (!window.EventSource || ["part", "error", "try"].indexOf(page) >= 0) { page = page === "part" || page === "try" ? "line" : page; live = null; }
  if (!window.EventSource || page === "error") { return; }

  function show() {
    if (waiting === null || held || pressed) { return; }
    var focused = document.activeElement, href = focused && live.contains(focused) ? focused.getAttribute("href") : null;
    live.innerHTML = waiting;
    waiting = null;
    if (href) {
      var links = live.getElementsByTagName("a");
      for (var i = 0; i < links.length; i++) { if (links[i].getAttribute("href") === href) { links[i].focus(); break; } }
    }
  }

  var source = new EventSource("/live/" + page + (live ? window.location.search : ""));
  source.onmessage = function (message) {
    heard = Date.now();
    gone.hidden = true;
    document.body.className = "";
    var said = JSON.parse(message.data);
    if (said.banner === undefined) { return; }
    banner.innerHTML = said.banner;
    if (live) {
      document.title = said.title.replace(/&amp;/g, "&");
      waiting = said.live;
      show();
    }
  };
  window.setInterval(function () {
    if (Date.now() - heard > 4000) { gone.hidden = false; document.body.className = "gone"; }
  }, 500);
  window.addEventListener("beforeunload", function () { source.close(); });

  if (!live) { return; }
  document.addEventListener("mousedown", function () { pressed = true; });
  document.addEventListener("touchstart", function () { pressed = true; });
  function release() { window.setTimeout(function () { pressed = false; show(); }, 400); }
  document.addEventListener("mouseup", release);
  document.addEventListener("touchend", release);
  document.addEventListener("touchcancel", release);
  hold.hidden = false;
  hold.onclick = function () {
    held = !held;
    hold.className = held ? "on" : "";
    hold.textContent = held ? "Held – go on" : "Hold";
    show();
  };
}());
