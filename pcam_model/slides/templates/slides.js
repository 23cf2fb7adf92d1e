"use strict";
(() => {
  const find = id => document.getElementById(id);
  const viewer = OpenSeadragon({
    element: find("viewer"), drawer: "canvas", showNavigationControl: false, crossOriginPolicy: false,
    animationTime: 0.4, visibilityRatio: 0.5, maxZoomPixelRatio: 4, gestureSettingsMouse: {clickToZoom: false},
  });
  // It warns of tiles of the slide before that arrive late.
  OpenSeadragon.console = Object.assign(Object.create(console), {warn() {}});
  let slide = null, heatmap = null;

  function outlines() {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    svg.setAttribute("viewBox", `0 0 ${slide.width} ${slide.height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    path.setAttribute("d", slide.outlines);
    svg.style.visibility = find("outlined").checked ? "visible" : "hidden";
    return svg;
  }

  function showScale() {
    const micronsPerPixel = slide.mpp * slide.width / (viewer.viewport.getZoom(true) * viewer.container.clientWidth);
    const exact = 100 * micronsPerPixel, power = 10 ** Math.floor(Math.log10(exact));
    const microns = [5, 2, 1].map(step => step * power).find(length => length <= exact) ?? power;
    find("scale").style.width = `${microns / micronsPerPixel}px`;
    find("scale").textContent = microns >= 1000 ? `${microns / 1000} mm` : `${microns} µm`;
  }

  // Called by the file view/slide.js of a slide. The slide before may still be loading tiles from its own folder.
  window.showSlide = found => {
    const {folder} = document.currentScript.dataset, {tiles} = found;
    slide = found;
    heatmap = null;
    viewer.clearOverlays();
    viewer.open([
      {tileSource: {
        width: tiles.width, height: tiles.height, tileSize: tiles.tile, tileOverlap: 0, minLevel: 0,
        maxLevel: tiles.levels - 1, getTileUrl: (level, x, y) => `${folder}/view/${level}/${x}_${y}.jpg`,
      }},
      {tileSource: {type: "image", url: `${folder}/view/heatmap.png`}, opacity: find("opacity").value / 100,
       x: slide.heatmap.x, y: slide.heatmap.y, width: slide.heatmap.width},
    ]);
  };

  viewer.addHandler("open", () => {
    heatmap = viewer.world.getItemAt(1);
    viewer.addOverlay({element: outlines(), location: new OpenSeadragon.Rect(0, 0, 1, slide.height / slide.width)});
    viewer.viewport.fitBounds(viewer.world.getItemAt(0).getBounds(), true);
    find("shown").textContent = slide.name;
    const {shown_outlines: shown, all_outlines: all} = slide;
    find("count").textContent = shown < all ? `the ${shown} largest of ${all} outlines` : `${all} outlines`;
    showScale();
  });
  viewer.addHandler("update-viewport", () => slide && showScale());

  function load(button) {
    document.querySelector("tr.current")?.classList.remove("current");
    button.closest("tr").classList.add("current");
    const script = document.createElement("script");
    script.dataset.folder = button.dataset.folder;
    script.src = `${button.dataset.folder}/view/slide.js`;
    script.onload = () => script.remove();
    script.onerror = () => { find("shown").textContent = `${button.textContent}: ${script.src} is missing`; };
    document.head.append(script);
  }

  document.querySelectorAll("button.show").forEach(button => button.addEventListener("click", () => {
    load(button);
    find("viewer-panel").scrollIntoView({block: "nearest"});
  }));
  find("opacity").addEventListener("input", event => heatmap?.setOpacity(event.target.value / 100));
  find("outlined").addEventListener("change", event => {
    const svg = find("viewer").querySelector("svg");
    if (svg) svg.style.visibility = event.target.checked ? "visible" : "hidden";
  });
  find("zoom-in").addEventListener("click", () => viewer.viewport.zoomBy(1.6));
  find("zoom-out").addEventListener("click", () => viewer.viewport.zoomBy(1 / 1.6));
  find("home").addEventListener("click", () => viewer.viewport.goHome());
  load(document.querySelector("button.show"));
})();
